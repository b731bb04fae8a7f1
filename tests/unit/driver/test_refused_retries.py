"""After a failure for good, ZenML takes new records in no mode but `continue_on_failure`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from modalrun.driver.pipeline import Runner
from modalrun.driver.workers.worker import StepEnd
from modalrun.run.contract import EXIT_FAILED, MAX_PARALLELISM
from modalrun.run.failure import Failure
from modalrun.run.manifest import Graph
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_exit import ExitKind, SandboxExit

from .coordinator_bench import DONE, FAILED, KILLED, Bench, play, state, step_events
from .pool import Pool

REFUSED = SandboxExit(ExitKind.REFUSED, None, "No such secret.")
RETRIED = PlannedStep("", retries=2, delay=600)


@pytest.mark.parametrize("waits", [True, False])
def test_no_sandbox_is_created_for_a_retry_that_zenml_refuses(
    capsys: pytest.CaptureFixture[str], *, waits: bool
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": []}, step=RETRIED, failure_mode="stop_on_failure")
        run = bench.begin()
        first, second = [await bench.boxes.wait(f"sb-{name}-1") for name in "ab"]
        recorded = replace(state("b", "retrying"), failure=Failure("ValueError: no"))
        bench.records.recorder.states["b"] = recorded
        if waits:
            second.end(FAILED)
            while not bench.coordinator._steps["b"].attempts.failures:
                await asyncio.sleep(0)
        first.end(REFUSED)
        await bench.coordinator.early_end.refusing.wait()
        second.end(FAILED)
        await run
        assert len(bench.boxes.requested) == 2

    play(scene)
    events = [state for step, state in step_events(capsys.readouterr().out) if step == "b"]
    assert events[-1] == ("stopped" if waits else "failed")
    assert ("retrying" in events) == waits


def test_a_lost_sandbox_is_replaced_for_its_record_all_the_same() -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": []}, step=RETRIED, failure_mode="stop_on_failure")
        run = bench.begin()
        first, second = [await bench.boxes.wait(f"sb-{name}-1") for name in "ab"]
        bench.records.recorder.states["b"] = state("b", "running")
        first.end(REFUSED)
        await bench.coordinator.early_end.refusing.wait()
        second.end(KILLED)
        again = await bench.boxes.wait("sb-b-2")
        bench.records.recorder.states["b"] = state("b", "completed")
        again.end(DONE)
        await run
        assert list(bench.coordinator.failed) == ["a"]

    play(scene)


def test_a_worker_does_not_wait_for_a_retry_that_zenml_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")

    async def late() -> StepEnd:
        await asyncio.sleep(0.05)
        return StepEnd("failed", "ValueError: no")

    retries: Any = {"b": (2, 600, 1)}
    graph = Graph({"a": (), "b": ()}, retries, {}, "stop_on_failure")
    pool = Pool(graph, a=[late], b=[StepEnd("failed", "KeyError: 'x'")])

    async def run() -> int:
        return await asyncio.wait_for(Runner(pool).run(), 10)  # type: ignore[arg-type]

    assert asyncio.run(run()) == EXIT_FAILED
    assert pool.launched == ["a", "b"]
    assert step_events(capsys.readouterr().out)[-1] == ("b", "stopped")
