"""Coordinate static runs with fake sandboxes that complete, fail or are lost as each test says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from modalrun.driver.graph.takeover import Takeover
from modalrun.errors import AuthenticationError
from modalrun.run import contract, events
from modalrun.run.failure import Failure
from modalrun.run.metadata import StepMetadata
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_exit import ExitKind, ModalStatus, SandboxExit, read_exit
from modalrun.run.usage_log import Reading
from tests.unit.driver.coordinator_bench import (
    DONE,
    FAILED,
    KILLED,
    Bench,
    Box,
    play,
    state,
    step_events,
    taken_over,
)


def test_an_internal_error_leaves_no_sandbox_running() -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        box.end(RuntimeError("of ours"))
        await run
        assert list(bench.coordinator.failed) == ["a"]
        assert box.terminated

    play(scene)


@pytest.mark.parametrize("mode", ["stop_on_failure", "fail_fast"])
def test_nothing_starts_after_a_failure_before_the_takeover(mode: str) -> None:
    async def scene() -> None:
        bench = Bench({"other": [], "broken": [], "running": []}, failure_mode=mode)
        running = Box("running")
        run = bench.begin(taken_over(running, broken="failed"))
        await asyncio.sleep(0.05)
        assert bench.boxes.requested == []
        assert running.terminated == (mode == "fail_fast")
        running.end(DONE)
        await run
        assert list(bench.coordinator.failed) == ["broken"]

    play(scene)


def test_other_steps_run_after_a_failure_before_the_takeover() -> None:
    async def scene() -> None:
        bench = Bench({"broken": [], "other": [], "after": ["broken"]}, max_parallelism=1)
        run = bench.begin(taken_over(broken="failed"))
        (await bench.boxes.wait("sb-other-1")).end(DONE)
        await run
        assert (list(bench.coordinator.failed), len(bench.boxes.requested)) == (["broken"], 1)

    play(scene)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_sandboxes_of_a_step_the_last_one_is_adopted(order: int) -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        given_up, later = Box("a", 1), Box("a", 2)
        run = bench.begin(taken_over(*[given_up, later][::order], a="running"))
        await asyncio.sleep(0.05)
        assert (given_up.terminated, later.terminated) == (True, False)
        later.end(DONE)
        await run
        assert bench.coordinator.succeeded
        assert bench.boxes.requested == []

    play(scene)


def test_the_count_of_sandboxes_continues_after_a_takeover() -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        again = state("a", "running", 1, StepMetadata("sb-a-3", infrastructure_retries=2))
        run = bench.begin(Takeover([], {"a": again}))
        # Three have had the names up to this one.
        (await bench.boxes.wait("sb-a-4")).end(DONE)
        await run

    play(scene)


@pytest.mark.parametrize(("adopted", "retries"), [(1, 1), (2, 0)])
def test_the_sandbox_of_a_failure_that_is_recorded_uses_up_one_retry(
    adopted: int, retries: int
) -> None:
    async def scene() -> None:
        bench = Bench({"a": []}, step=PlannedStep("", retries=1))
        box = Box("a", adopted)
        retrying = replace(state("a", "retrying"), failure=Failure("ValueError: no"))
        bench.records.recorder.states["a"] = retrying
        run = bench.begin(Takeover([cast("Any", box)], {"a": retrying}))
        box.end(FAILED)
        if retries:
            (await bench.boxes.wait("sb-a-2")).end(DONE)
        await run
        assert len(bench.boxes.requested) == retries
        assert bench.coordinator.succeeded == bool(retries)

    play(scene)


def test_a_sandbox_that_a_stop_has_ended_is_not_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]})
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        bench.records.recorder.states["a"] = state("a", "running")
        bench.records.recorder.stopping = True
        box.end(KILLED)
        await run
        assert bench.coordinator.failed == {}
        assert bench.coordinator.early_end.requested
        assert len(bench.boxes.requested) == 1
        assert bench.records.recorder.states["a"].status == "stopped"

    play(scene)
    assert set(step_events(capsys.readouterr().out)[-2:]) == {("a", "stopped"), ("b", "not run")}


def test_a_failed_cache_lookup_runs_the_step() -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, step=PlannedStep("", caches=True))
        run = bench.begin()
        (await bench.boxes.wait("sb-a-1")).end(DONE)
        (await bench.boxes.wait("sb-b-1")).end(DONE)
        await run
        assert bench.coordinator.succeeded

    play(scene)


@pytest.mark.parametrize("stopping", [True, False])
def test_a_cached_step_that_zenml_refuses_has_failed_unless_the_run_is_stopping(
    stopping: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, step=PlannedStep("", caches=True))
        run = bench.begin()
        bench.records.recorder.cache_error = AuthenticationError("ZenML does not allow this.")
        bench.records.recorder.stopping = stopping
        (await bench.boxes.wait("sb-a-1")).end(DONE)
        await run
        assert bench.coordinator.early_end.requested == stopping
        assert ("b" in bench.coordinator.failed) != stopping
        assert len(bench.boxes.requested) == 1

    play(scene)
    assert step_events(capsys.readouterr().out)[-1] == ("b", "stopped" if stopping else "failed")


def test_a_cached_step_that_zenml_refuses_after_a_failure_is_not_run() -> None:
    async def scene() -> None:
        caching = PlannedStep("", caches=True)
        bench = Bench({"a": [], "b": ["a"]}, step=caching, failure_mode="stop_on_failure")
        run = bench.begin()
        bench.records.recorder.cache_error = AuthenticationError("ZenML does not allow this.")
        bench.records.recorder.failing = True
        (await bench.boxes.wait("sb-a-1")).end(DONE)
        (await bench.boxes.wait("sb-b-1")).end(read_exit(contract.EXIT_UNRECORDED))
        await run
        assert bench.coordinator.failed == {}

    play(scene)


def test_a_sandbox_exit_is_stored_with_the_record_that_it_executed() -> None:
    async def scene() -> None:
        bench = Bench({"a": []}, step=PlannedStep("", retries=1))
        run = bench.begin()
        first = await bench.boxes.wait("sb-a-1")
        bench.records.recorder.states["a"] = state("a", "retrying")
        first.end(FAILED)
        # Lost before it has a record of its own.
        (await bench.boxes.wait("sb-a-2")).end(KILLED)
        (await bench.boxes.wait("sb-a-3")).end(DONE)
        await run
        assert bench.records.recorder.exits == [("record-a", "sb-a-1")]

    play(scene)


def test_a_step_whose_sandboxes_are_killed_keeps_its_last_lines() -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        run = bench.begin()
        for number in (1, 2, 3):
            box = await bench.boxes.wait(f"sb-a-{number}")
            bench.records.recorder.states["a"] = state("a", "running")
            box.end(replace(KILLED, killed=True))
        await run
        assert bench.records.recorder.failures == [("It was killed.", True)]
        assert bench.records.recorder.lines == ["last words of sb-a-3"]

    play(scene)


def test_what_a_step_has_used_whose_sandbox_ran_out_of_memory_is_stored() -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        bench.records.recorder.states["a"] = state("a", "running")
        begin = Reading("begin", 1.0, 7, 0.5, 0, record="record-a")
        box.told = [json.dumps(begin), json.dumps(Reading("sample", 3.0, 7, 1.5, 700 << 20))]
        box.end(read_exit(137, ModalStatus.KERNEL_OOM_KILL))
        await run
        assert bench.records.recorder.peaks == [("record-a", 700)]
        (failure,) = bench.records.recorder.failures
        assert failure == ("The sandbox ran out of memory: peak 700 MiB.", True)

    play(scene)


@pytest.mark.parametrize(
    ("recorded", "end", "said"),
    [
        ("SystemExit: 3", read_exit(1), "SystemExit: 3"),
        ("It was killed (SIGKILL).", read_exit(1), "It was killed (SIGKILL)"),
        # Its sandbox was lost after the failure.
        ("SystemExit: 3", KILLED, "SystemExit: 3"),
        ("SystemExit: 3", read_exit(124), "SystemExit: 3"),
        (None, read_exit(1), "The step failed"),
    ],
)
def test_the_recorded_reason_of_a_failure_is_the_one_that_is_told(
    recorded: str | None, end: SandboxExit, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        bench = Bench({"a": []}, step=PlannedStep("", retries=1, delay=0.01))
        run = bench.begin()
        first = await bench.boxes.wait("sb-a-1")
        bench.records.recorder.states["a"] = replace(
            state("a", "retrying"), failure=recorded and Failure(recorded)
        )
        first.end(end)
        second = await bench.boxes.wait("sb-a-2")
        bench.records.recorder.states["a"] = replace(
            state("a", "failed", 2), failure=recorded and Failure(recorded)
        )
        second.end(end)
        await run

    play(scene)
    found = [events.read(line) for line in capsys.readouterr().out.split("\n")]
    ends = [e.reason for e in found if isinstance(e, events.StepEvent) and e.reason]
    assert ends[0] == f"Step `a` failed: {said}; retry 1 of 1 in 0.01 s."
    assert ends[1].rstrip(".") == said


def test_an_unrecorded_failure_is_recorded_before_the_retry() -> None:
    async def scene() -> None:
        bench = Bench({"a": []}, step=PlannedStep("", retries=1))
        run = bench.begin()
        first = await bench.boxes.wait("sb-a-1")
        bench.records.recorder.states["a"] = state("a", "running")
        # Modal was quicker than the supervisor.
        first.end(SandboxExit(ExitKind.TIMED_OUT, 124, "The sandbox reached its timeout."))
        second = await bench.boxes.wait("sb-a-2")
        assert bench.records.recorder.failures == [("The sandbox reached its timeout.", False)]
        assert "MODALRUN_STEP_RUN" not in bench.boxes.requested[1].env
        second.end(DONE)
        await run

    play(scene)


def test_a_sandbox_lost_during_a_graceful_stop_is_no_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": []})
        run = bench.begin()
        lost, kept = [await bench.boxes.wait(f"sb-{name}-1") for name in "ab"]
        bench.records.recorder.states["a"] = state("a", "running")
        bench.coordinator.stop("the run was asked to stop")
        lost.end(KILLED)
        kept.end(DONE)
        await run
        assert bench.coordinator.failed == {}
        assert bench.coordinator.early_end.requested
        # ZenML would interrupt the other steps; the end of the run settles it.
        assert bench.records.recorder.states["a"].status == "running"

    play(scene)
    assert ("a", "stopped") in step_events(capsys.readouterr().out)


@pytest.mark.parametrize("mode", ["stop_on_failure", "fail_fast"])
def test_a_step_that_begins_after_a_failure_that_only_zenml_knows_is_not_run(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": [], "c": ["b"], "d": ["c"]}, failure_mode=mode)
        run = bench.begin()
        in_hook = await bench.boxes.wait("sb-a-1")
        (await bench.boxes.wait("sb-b-1")).end(DONE)
        refused = await bench.boxes.wait("sb-c-1")
        bench.records.recorder.states["a"] = state("a", "failed")
        bench.records.recorder.failing = True
        refused.end(read_exit(contract.EXIT_UNRECORDED))
        await asyncio.sleep(0.05)
        assert not in_hook.terminated
        in_hook.end(FAILED)
        await run
        assert list(bench.coordinator.failed) == ["a"]
        assert len(bench.boxes.requested) == 3

    play(scene)
    out = capsys.readouterr().out
    assert [event for event in step_events(out) if event[1] in {"failed", "not run"}] == [
        ("c", "not run"),
        ("d", "not run"),
        ("a", "failed"),
    ]
    assert "Step `d` is not run: another step failed." in out


def test_a_step_that_fails_just_before_fail_fast_ends_it_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": []}, failure_mode="fail_fast")
        run = bench.begin()
        first, second = [await bench.boxes.wait(f"sb-{name}-1") for name in "ab"]
        bench.records.recorder.states["a"] = state("a", "failed")
        bench.records.recorder.states["b"] = replace(
            state("b", "failed"), failure=Failure("ValueError: no")
        )
        first.end(FAILED)
        await run
        assert second.terminated
        assert bench.coordinator.failed == {"a": "It raised.", "b": "ValueError: no"}

    play(scene)
    assert ("b", "failed") in step_events(capsys.readouterr().out)


def test_a_retry_that_zenml_refuses_leaves_the_failure_before() -> None:
    async def scene() -> None:
        bench = Bench({"a": []}, step=PlannedStep("", retries=3), failure_mode="stop_on_failure")
        run = bench.begin()
        first = await bench.boxes.wait("sb-a-1")
        recorded = replace(state("a", "retrying"), failure=Failure("ValueError: no"))
        bench.records.recorder.states["a"] = recorded
        bench.records.recorder.failing = True
        first.end(FAILED)
        (await bench.boxes.wait("sb-a-2")).end(read_exit(contract.EXIT_UNRECORDED))
        await run
        assert bench.coordinator.failed == {"a": "ValueError: no"}
        assert len(bench.boxes.requested) == 2

    play(scene)


@pytest.mark.parametrize("status", ["failed", "running", None])
def test_at_the_timeout_of_the_run_the_code_of_its_steps_unwinds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str | None
) -> None:
    (tmp_path / "reason").write_text("The run took longer than its timeout of 1 s.")
    monkeypatch.setenv(contract.END_REASON_FILE, str(tmp_path / "reason"))
    monkeypatch.setenv(contract.TIMEOUT, "1")

    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]})
        if status is not None:
            bench.records.recorder.states["a"] = state("a", status)
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        box.unwinds = status == "failed"
        bench.coordinator.give_up("the run took longer", timed_out=True)
        await run
        assert box.written == ["end The run took longer than its timeout of 1 s.\n"]
        assert box.terminated
        kept = {} if box.unwinds else {"a": ["last words of sb-a-1"]}
        assert bench.coordinator.early_end.lines == kept, "if the step has not recorded its own"
        assert bench.records.recorder.failures == [], "the end of the run records it"

    play(scene)
