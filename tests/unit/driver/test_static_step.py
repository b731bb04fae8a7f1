"""Judge the end of a step's sandbox by ZenML's record of the step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.driver.graph.static_step import has_failed
from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.metadata import StepMetadata
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import Resources
from tests.unit.driver.coordinator_bench import Bench, play, state, taken_over


@pytest.mark.parametrize(
    ("status", "attempt", "finished", "failures", "failed"),
    [
        # Nobody has recorded an end.
        ("running", 1, False, 0, False),
        # The failure is that of the try before, whose retry was lost before it had a record.
        ("retrying", 1, False, 1, False),
        # The step had recorded its failure before its sandbox was lost.
        ("retrying", 1, False, 0, True),
        ("retrying", 2, False, 1, True),
        ("failed", 2, True, 1, True),
    ],
)
def test_whether_a_lost_sandbox_hides_a_failure(
    status: str, attempt: int, finished: bool, failures: int, failed: bool
) -> None:
    state: Any = SimpleNamespace(status=status, attempt=attempt, finished=finished)
    assert has_failed(state, failures) is failed


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_sandbox_has_asked_for_is_stored_as_the_step_has_done_so(*, begun: bool) -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        if begun:
            of_step = StepMetadata("sb-a-1", memory=300)
            bench.records.recorder.states["a"] = state("a", "running", metadata=of_step)
        box.end(SandboxExit(ExitKind.OUT_OF_MEMORY, 137, "The sandbox ran out of memory."))
        await run
        (stored,) = bench.records.recorder.exit_metadata
        assert (stored.sandbox_id, stored.exit_code) == ("sb-a-1", 137)
        asked = Resources()
        assert (stored.cpu, stored.memory) == ((None, 300) if begun else (asked.cpu, asked.memory))

    play(scene)


def test_a_sandbox_that_was_lost_before_its_step_began() -> None:
    assert not has_failed(None, 0)


def test_a_failure_before_the_takeover_is_told_with_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        await Bench({"a": []}).begin(taken_over(a="failed"))

    play(scene)
    told = events.read(capsys.readouterr().out.split("\n")[0])
    assert isinstance(told, StepEvent)
    assert (told.step, told.state, told.began) == ("a", "failed", 1.0)
