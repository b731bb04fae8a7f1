"""Judge the end of a step's sandbox by ZenML's record of the step."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.driver.graph.static_step import has_failed
from modalrun.run import contract, events
from modalrun.run.events import StepEvent
from modalrun.run.metadata import StepMetadata
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import Resources
from tests.unit.driver.coordinator_bench import (
    DONE,
    FAILED,
    KILLED,
    Bench,
    Box,
    play,
    state,
    taken_over,
)


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
        sent = json.loads(bench.boxes.requested[0].env[contract.STEP_METADATA])
        # Else its timeline would show that it has waited until its end.
        assert stored.requested == (None if begun else sent["requested"])

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


def test_a_lost_sandbox_is_no_try_and_the_next_one_knows_when_it_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"a": []}, step=PlannedStep("", retries=1))
        run = bench.begin()
        for number, end in enumerate([KILLED, KILLED, FAILED, FAILED], 1):
            box = await bench.boxes.wait(f"sb-a-{number}")
            if end is FAILED:
                attempt, status = (1, "retrying") if number == 3 else (2, "failed")
                bench.records.recorder.states["a"] = state("a", status, attempt=attempt)
            box.end(end)
        await run
        known = [json.loads(spec.env[contract.STEP_METADATA]) for spec in bench.boxes.requested]
        first = known[0]["requested"]
        assert [one["lost"] for one in known] == [None, first, first, None]

    play(scene)
    told = [events.read(line) for line in capsys.readouterr().out.split("\n")]
    tries = [(one.state, one.attempt, one.tries) for one in told if isinstance(one, StepEvent)]
    assert [one for one in tries if one[0] != "starting"] == [
        ("running", 1, 1),
        ("retrying", 1, 1),
        ("running", 2, 1),
        ("retrying", 2, 1),
        ("running", 3, 1),
        ("retrying", 3, 1),
        ("running", 4, 2),
        ("failed", 4, 2),
    ]


def test_a_step_whose_sandbox_was_lost_before_the_takeover_says_that_it_is_started_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"lost": [], "new": [], "adopted": []})
        adopted = Box("adopted")
        run = bench.begin(taken_over(adopted, lost="running", adopted="running"))
        for box in (
            adopted,
            await bench.boxes.wait("sb-lost-2"),
            await bench.boxes.wait("sb-new-1"),
        ):
            box.end(DONE)
        await run

    play(scene)
    told = [events.read(line) for line in capsys.readouterr().out.split("\n")]
    reason = "Its sandbox was lost. It is started again, without using up a retry."
    assert [
        (one.step, one.attempt, one.reason)
        for one in told
        if isinstance(one, StepEvent) and one.state == "retrying"
    ] == [("lost", 1, reason)]
