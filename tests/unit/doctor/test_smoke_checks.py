"""What is seen of a sandbox becomes ok, differs or broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modalrun.doctor.smoke_checks import LINES, Seen, judge
from modalrun.doctor.smoke_trials import REACTION_SECONDS, TRIAL_SECONDS, TRIALS, with_gpu
from modalrun.driver.probe import INPUT_SECONDS, MARK, MODES, facts_in, payload
from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError, UsageError
from modalrun.run.sandbox_exit import ModalStatus, read_exit

INSIDE = {
    "variables": ["MODAL_SANDBOX_ID"],
    "init": "dumb-init",
    "pid": 7,
    "parent": 1,
    "group": 7,
    "uid": 0,
    "memory": 1024,
    "writable": {"TMPDIR": True, "HOME": True, "the working folder": True},
    "zenml": ["ok", "user 'ci'", None],
    "artifact_store": ["ok", "s3", None],
    "zenml_import": 3.0,
}
DRIVER = {
    "modal_import": 1.0,
    "app": "ap-1",
    "driver_app": "ap-1",
    "child": 0.5,
    "listed": 0.4,
    "taken": True,
    "free": True,
}
WHOLE = payload().decode("utf-8", "replace")
TERMINATED = read_exit(137, ModalStatus.TERMINATED)
COMPLETED, FAILED = read_exit(0, ModalStatus.SUCCESS), read_exit(3, ModalStatus.FAILURE)
OUT_OF_MEMORY = read_exit(137, ModalStatus.KERNEL_OOM_KILL)
TIMED_OUT = read_exit(124, ModalStatus.TIMEOUT)


def told(*facts: dict[str, Any]) -> str:
    return "".join(f"noise\n{MARK}{json.dumps(one)}\n" for one in facts)


def state_of(line: str, seen: Seen) -> str:
    (found,) = (f for f in judge(LINES[line].trial, seen) if f.check == line)
    assert found.exit_code == (1 if found.state == "broken" else 0)
    assert bool(found.hint) == (found.state != "ok")
    return found.state


@pytest.mark.parametrize(
    ("line", "changed", "state"),
    [
        *((name, {}, "ok") for name, line in LINES.items() if line.trial == "inside"),
        ("variables", {"variables": []}, "differs"),
        ("variables", {"variables": ["MODAL_IS_REMOTE", "MODAL_SANDBOX_ID"]}, "differs"),
        ("init", {"pid": 1, "parent": 0}, "ok"),
        ("init", {"parent": 5}, "differs"),
        ("group", {"group": 1}, "differs"),
        ("user", {"uid": 1000}, "differs"),
        ("memory", {"memory": None}, "differs"),
        ("folders", {"writable": {"TMPDIR": True, "HOME": False}}, "differs"),
        ("folders", {"writable": {"TMPDIR": False, "HOME": False}}, "broken"),
        ("zenml", {"zenml": ["problem", "refused", "log in"]}, "broken"),
        ("artifact_store", {"artifact_store": ["problem", "no bucket", None]}, "broken"),
        ("import_zenml", {"zenml_import": 50.0}, "differs"),
    ],
)
def test_surroundings(line: str, changed: dict[str, Any], state: str) -> None:
    seen = Seen(output=told(INSIDE, changed), end=COMPLETED)
    assert state_of(line, seen) == state


def test_zenml_that_can_t_be_reached_prevents_the_store() -> None:
    facts = {**INSIDE, "zenml": ["problem", "no route", None]}
    del facts["artifact_store"], facts["zenml_import"]
    seen = Seen(output=told(facts), end=COMPLETED, errors="Traceback\nOSError: gone")
    assert state_of("artifact_store", seen) == "broken"
    (import_,) = (f for f in judge("inside", seen) if f.check == "import_zenml")
    assert "nothing is reported" in import_.message and "OSError: gone" in import_.message


@pytest.mark.parametrize(
    ("line", "changed", "state"),
    [
        *((name, {}, "ok") for name, line in LINES.items() if line.trial == "driver"),
        ("app", {"driver_app": "ap-2"}, "broken"),
        ("list", {"listed": None}, "broken"),
        ("list", {"listed": 6.0}, "differs"),
        ("name", {"taken": False}, "broken"),
        ("name", {"free": False}, "broken"),
    ],
)
def test_a_driver(line: str, changed: dict[str, Any], state: str) -> None:
    seen = Seen(output=told(DRIVER, changed), more={"app": "ap-1"}, end=COMPLETED)
    assert state_of(line, seen) == state


@pytest.mark.parametrize(
    ("lines", "ahead", "state", "clock"),
    [
        (["first", "second"], 0.2, "ok", "ok"),
        (["first", "d"], 30.0, "differs", "differs"),
        (["first"], -2000.0, "differs", "broken"),
        ([], None, "broken", "broken"),
    ],
)
def test_input_and_clock(lines: list[str], ahead: float | None, state: str, clock: str) -> None:
    more = {} if ahead is None else {"ahead": ahead}
    seen = Seen(output=told(*({"line": one, "at": 1} for one in lines)), more=more, end=COMPLETED)
    assert (state_of("input", seen), state_of("clock", seen)) == (state, clock)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (WHOLE, "ok"),
        (WHOLE.replace("�", "?"), "differs"),
        (WHOLE.replace("\r", "\n").replace("\x00", ""), "differs"),
        (WHOLE[: len(WHOLE) // 2], "broken"),
        (WHOLE + "00000 again\n", "broken"),
        (WHOLE.replace("00010 ", "", 1), "broken"),
        ("", "broken"),
    ],
)
def test_output(text: str, state: str) -> None:
    seen = Seen(output=text, more={"late": text, "history": text, "lag": 1.0}, end=COMPLETED)
    assert [state_of(name, seen) for name in ("live", "late", "history")] == [state] * 3


def test_a_history_that_is_late() -> None:
    seen = Seen(more={"late": "", "history": WHOLE, "lag": 14.0}, end=COMPLETED)
    assert state_of("history", seen) == "differs"


SIGNALS = told({"alive": 1.0}, {"signal": "SIGTERM", "at": 1.0}, {"alive": 1.5})


@pytest.mark.parametrize(
    ("line", "seen", "state"),
    [
        ("exit_0", Seen(end=COMPLETED), "ok"),
        ("exit_0", Seen(end=read_exit(0, ModalStatus.INTERNAL_FAILURE)), "broken"),
        ("exit_3", Seen(end=FAILED), "ok"),
        ("exit_3", Seen(end=COMPLETED), "broken"),
        ("exit_3", Seen(end=read_exit(1, ModalStatus.FAILURE)), "differs"),
        ("kill", Seen(end=read_exit(137, ModalStatus.FAILURE)), "ok"),
        ("kill", Seen(end=read_exit(9, ModalStatus.FAILURE)), "differs"),
        ("not_found", Seen(end=read_exit(127, ModalStatus.FAILURE)), "ok"),
        ("not_found", Seen(more={"refused": "no such file"}), "ok"),
        ("not_found", Seen(end=COMPLETED), "broken"),
        ("terminate", Seen(end=TERMINATED, output=SIGNALS), "ok"),
        ("terminate", Seen(end=TERMINATED, output=SIGNALS + SIGNALS), "differs"),
        ("terminate", Seen(end=TERMINATED), "differs"),
        ("terminate", Seen(end=COMPLETED), "broken"),
        ("timeout", Seen(end=TIMED_OUT, output=SIGNALS), "ok"),
        ("timeout", Seen(end=TERMINATED), "broken"),
        ("out_of_memory", Seen(end=OUT_OF_MEMORY), "ok"),
        ("out_of_memory", Seen(end=COMPLETED, output=told({"held": 256})), "differs"),
        ("out_of_memory", Seen(end=TERMINATED), "differs"),
        ("volume", Seen(output=told({"found": "x"}), more={"text": "x"}), "ok"),
        ("volume", Seen(output=told({"found": None}), more={"text": "x"}), "broken"),
        ("gpu", Seen(output=told({"gpus": ["GPU 0: Tesla T4"]})), "ok"),
        ("gpu", Seen(output=told({"gpus": []})), "broken"),
        ("gpu", Seen(output=told({"gpus": [], "why": "no driver"}), local=True), "differs"),
    ],
)
def test_ends(line: str, seen: Seen, state: str) -> None:
    assert state_of(line, seen) == state


def test_an_error_is_told_in_each_line_of_its_trial() -> None:
    lost = ConnectionLostError("Modal is away.", hint="Look at its status.")
    found = judge("driver", lost)
    assert {one.check for one in found} == {n for n, at in LINES.items() if at.trial == "driver"}
    assert {(one.state, one.message, one.hint) for one in found} == {
        ("broken", "Modal is away.", "Look at its status.")
    }
    (gpu,) = judge("gpu", CapacityError("There is no T4."))
    (kill,) = judge("kill", CapacityError("There is no room."))
    assert (gpu.state, kill.state) == ("differs", "broken")


def test_a_value_that_modal_refuses_is_to_be_corrected_and_not_reported() -> None:
    (gpu,) = judge("gpu", UsageError("Modal refuses this: no GPU type 'T44'."))
    assert gpu.state == "broken" and "'--gpu'" in str(gpu.hint)
    (kill,) = judge("kill", ModalrunError("KeyError: 'x'"))
    assert "report" in str(kill.hint)


def test_each_line_has_a_trial_and_each_trial_a_probe() -> None:
    trials = {**TRIALS, "gpu": with_gpu("T4")}
    assert {line.trial for line in LINES.values() if line.trial} == set(trials)
    assert {one.probe[0] for one in trials.values() if one.probe} == set(MODES)


def test_facts_are_read_between_other_output() -> None:
    output = f"hello\n{MARK}broken\n{told({'a': 1}, {'a': 2})}{MARK}{{"
    assert facts_in(output) == [{"a": 1}, {"a": 2}]


def test_a_sandbox_that_does_not_start_says_so_in_each_line() -> None:
    seen = Seen(end=read_exit(1, ModalStatus.INIT_FAILURE, "no image"))
    found = judge("output", seen)
    assert {one.state for one in found} == {"broken"}
    assert all(
        "could not start" in one.message and "Try again" in (one.hint or "") for one in found
    )


def test_a_probe_waits_longer_than_a_slow_machine_takes_to_see_it() -> None:
    assert REACTION_SECONDS < INPUT_SECONDS < min(TRIAL_SECONDS.values())
