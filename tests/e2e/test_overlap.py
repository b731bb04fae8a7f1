"""Modal is asked while ZenML compiles and records; what fails on either side leaves nothing."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_interrupted_creation import faults, signalled_at

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

DEBUG = {"MODALRUN_DEBUG": "1"}
SPEC = "pipeline: sandboxes.plain\ntarget: local\nenable_cache: false\n"
EVERY = pytest.mark.exhaustive


def rule(rpc: str, action: str, **more: Any) -> dict[str, Any]:
    return {"rpc": rpc, "action": action, "times": None, **more}


def phases(result: Result) -> dict[str, tuple[float, float]]:
    """Return the first interval of each phase of a timeline."""
    found: dict[str, tuple[float, float]] = {}
    row = r"^ *([0-9.]+) +([0-9.]+)  \S+ +(\S.*?)  "
    for begin, end, name in re.findall(row, result.stderr, re.MULTILINE):
        found.setdefault(name, (float(begin), float(end)))
    assert found, result.stderr
    return found


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_the_second_submission_sends_the_source_while_zenml_records_the_run(world: World) -> None:
    first = world.submit(SPEC, **DEBUG)
    assert first.exit_code == 0, first.stderr
    assert "look up or build an image" in phases(first)
    faults(world, rule("MountGetOrCreate", "delay", seconds=1.0))

    second = world.submit(SPEC, **DEBUG)

    assert second.exit_code == 0, second.stderr
    found = phases(second)
    assert "look up or build an image" not in found
    assert overlap(found["send the source"], found["create the run"]), second.stderr
    assert found["copy and hash the source"][0] <= found["plan"][0], second.stderr
    # The run exists before its sandbox, and the files are there.
    assert found["create the run"][1] <= found["create the sandbox"][0]
    assert found["send the source"][1] <= found["create the sandbox"][0]
    assert [run.status for run in world.runs()] == ["completed", "completed"]


def test_changed_code_runs_as_it_is_now(world: World) -> None:
    assert world.submit(SPEC).exit_code == 0
    path = world.project / "sandboxes.py"
    path.write_text(path.read_text() + "\nprint('imported anew')\n")
    done = world.submit(SPEC)
    assert done.exit_code == 0, done.stderr
    assert "imported anew" in done.stdout


@pytest.mark.exhaustive
def test_a_run_that_zenml_refuses_waits_for_nothing_of_modals(world: World) -> None:
    spec = f"{SPEC}run_name: once\n"
    assert world.submit(spec).exit_code == 0
    faults(world, rule("MountGetOrCreate", "hang"))

    refused = world.submit(spec, **DEBUG)

    assert refused.exit_code == 2, refused.stderr
    assert "a run named 'once' already" in refused.stderr
    assert phases(refused), "a failure has a timeline, too"
    assert len(world.runs()) == 1 and len(world.sandboxes()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=EVERY)])
def test_a_signal_while_the_source_is_sent_ahead_cancels_the_run(
    world: World, number: signal.Signals
) -> None:
    assert world.submit(SPEC).exit_code == 0
    faults(world, rule("MountGetOrCreate", "hang"))
    command = world.popen(SPEC)
    command.stderr.wait_for("  stack ")
    signalled_at(world, command, "MountGetOrCreate", number)

    done = command.finish()

    assert done.exit_code == 128 + number, done.stderr
    assert "nothing of it is running" in done.stderr
    assert world.runs()[-1].status == "stopped"
    assert len(world.sandboxes()) == 1


def test_modal_is_connected_to_while_zenml_is_imported(world: World) -> None:
    # The default stack is refused on Modal's cloud, for which the local server stands here.
    variables = world.server()
    faults(world, rule("ClientHello", "delay", seconds=1.0))

    refused = world.submit(SPEC, "--target", "modal", **DEBUG, **variables)

    assert refused.exit_code == 2, refused.stderr
    found = phases(refused)
    compiling = found["import ZenML"][0], found["plan"][0]
    assert overlap(found["connect to Modal"], compiling), refused.stderr
    assert world.runs() == [] and world.sandboxes() == [] and world.apps() == []


@EVERY
def test_a_signal_while_modal_does_not_answer_submits_nothing(world: World) -> None:
    variables = world.server()
    faults(world, rule("ClientHello", "hang"))
    command = world.popen(SPEC, "--target", "modal", **variables)
    signalled_at(world, command, "ClientHello", signal.SIGINT)

    done = command.finish()

    assert done.exit_code == 130, done.stderr
    assert "nothing was submitted" in done.stderr
    assert world.runs() == [] and world.apps() == []


@EVERY
def test_mistakes_of_the_spec_come_before_those_of_the_account(world: World) -> None:
    variables = world.server()
    faults(world, rule("ClientHello", "error", status="UNAUTHENTICATED"))
    done = world.submit("pipeline: sandboxes.missing\n", "--target", "modal", **variables)
    assert done.exit_code == 2, done.stderr
    assert "missing" in done.stderr and "token" not in done.stderr.lower()
