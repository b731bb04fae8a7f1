"""Coordinate static runs with fake sandboxes that complete, fail or are lost as each test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pytest

from modalrun.driver.coordinator import Coordinator
from modalrun.driver.takeover import Takeover
from modalrun.modal_api.step_sandboxes import GivenUp
from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.manifest import RunManifest, Source
from modalrun.run.metadata import StepMetadata
from modalrun.run.records import StepRecord
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.tags import TAG_EARLY

DONE = SandboxExit(ExitKind.COMPLETED, 0, "The step completed.")
FAILED = SandboxExit(ExitKind.FAILED, 1, "It raised.")
KILLED = SandboxExit(ExitKind.TERMINATED, 137, "It was killed.")


class Box:
    """A step sandbox that ends when the test says so."""

    def __init__(self, step: str, attempt: int = 1, *, early: bool = False) -> None:
        self.id = f"sb-{step}-{attempt}"
        self.step, self.attempt, self.early = step, attempt, early
        self.gpu: str | None = None
        self.record = ""
        self.written: list[str] = []
        self.terminated = False
        self.fault: Exception | None = None
        self.reads: Callable[[Box], Any] | None = None
        self._over = asyncio.Event()
        self._end = DONE

    def end(self, end: SandboxExit | Exception) -> None:
        if isinstance(end, Exception):
            self.fault = end
        else:
            self._end = end
        self._over.set()

    async def ended(self) -> SandboxExit:
        await self._over.wait()
        if self.fault is not None:
            raise self.fault
        return self._end

    async def write(self, text: str) -> None:
        if self.reads is not None:
            await self.reads(self)
        self.written.append(text)

    async def terminate(self) -> None:
        self.terminated = True
        if not self._over.is_set():
            self.end(KILLED)


class Boxes:
    """Create sandboxes as `StepSandboxes` does."""

    def __init__(self) -> None:
        self.created: dict[str, Box] = {}
        self.requested: list[SandboxSpec] = []
        self.news = asyncio.Event()

    async def create(self, spec: SandboxSpec, given_up: asyncio.Event, **_: Any) -> Box:
        await asyncio.sleep(0)
        if given_up.is_set():
            raise GivenUp
        self.requested.append(spec)
        tags = spec.tags
        attempt = int(tags["modalrun-attempt"])
        box = Box(tags["modalrun-step"], attempt, early=TAG_EARLY in tags)
        self.created[box.id] = box
        self.news.set()
        return box

    async def wait(self, sandbox: str) -> Box:
        """Wait until a sandbox has been created."""
        while sandbox not in self.created:
            self.news.clear()
            await self.news.wait()
        return self.created[sandbox]


class Recorder:
    """Fake the part of `RunRecorder` that a coordinator calls."""

    def __init__(self) -> None:
        self.states: dict[str, StepRecord] = {}
        self.stopping = False
        self.exits: list[tuple[str, str]] = []
        self.failures: list[tuple[str, bool]] = []

    def step_state(self, step: str) -> StepRecord | None:
        return self.states.get(step)

    def stop_requested(self) -> bool:
        return self.stopping

    def cached(self, step: str) -> bool:
        raise LookupError("of ZenML's")

    def record_exit(self, step_run: str, metadata: StepMetadata) -> None:
        self.exits.append((step_run, metadata.sandbox_id))

    def fail_step(self, step: str, reason: str, *, final: bool = False) -> None:
        self.failures.append((reason, final))
        again = not final and self.states[step].status == "running"
        self.states[step] = state(step, "retrying" if again else "failed")

    def stop_step(self, step: str, reason: str) -> None:
        self.states[step] = state(step, "stopped")


class AsyncRecorder:
    """As `modalrun.driver.recorder.AsyncRecorder`."""

    def __init__(self) -> None:
        self.recorder = Recorder()

    async def call(self, question: Callable[[Recorder], Any]) -> Any:
        await asyncio.sleep(0)
        return question(self.recorder)


def state(
    step: str, status: str, attempt: int = 1, metadata: StepMetadata | None = None
) -> StepRecord:
    start = datetime.fromtimestamp(1, timezone.utc)
    return StepRecord(step, status, attempt, start, metadata=metadata, id=f"record-{step}")


STEP = PlannedStep("")


def _tagged(sandbox: SandboxSpec, step: str) -> SandboxSpec:
    return replace(sandbox, tags={"modalrun-role": "step", "modalrun-step": step})


class Bench:
    """A coordinator with its fakes."""

    def __init__(
        self,
        graph: dict[str, Collection[str]],
        *,
        step: PlannedStep = STEP,
        failure_mode: str = "continue_on_failure",
        cached: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        """Make a walk through a graph; `step` has what its steps have in common."""
        sandbox = SandboxSpec(("python",), "im-1", Resources(), 300)
        plan = RunPlan(
            "local",
            "p",
            RunSettings(app_name="a", mode="per_step", **settings),
            sandbox,
            tuple(
                replace(step, name=name, upstream=tuple(up), sandbox=_tagged(sandbox, name))
                for name, up in graph.items()
            ),
        )
        source = Source(Path("/s"), "h")
        self.boxes = Boxes()
        self.records = AsyncRecorder()
        self.coordinator = Coordinator(
            RunManifest("run", plan, failure_mode, source, cached=cached),
            cast("Any", self.boxes),
            cast("Any", self.records),
        )

    def begin(self, taken: Takeover | None = None) -> asyncio.Task[None]:
        return asyncio.create_task(self.coordinator.run(taken))


def taken_over(*members: Box, **states: str) -> Takeover:
    return Takeover(
        cast("Any", members), {name: state(name, status) for name, status in states.items()}
    )


def play(scene: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 10))


def step_events(out: str) -> list[tuple[str, str]]:
    found = [events.read(line) for line in out.split("\n")]
    return [(event.step, event.state) for event in found if isinstance(event, StepEvent)]


def test_an_internal_error_leaves_no_sandbox_running() -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        box.end(RuntimeError("of ours"))
        await run
        assert bench.coordinator.failed == ["a"]
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
        assert bench.coordinator.failed == ["broken"]

    play(scene)


def test_other_steps_run_after_a_failure_before_the_takeover() -> None:
    async def scene() -> None:
        bench = Bench({"broken": [], "other": [], "after": ["broken"]}, max_parallelism=1)
        run = bench.begin(taken_over(broken="failed"))
        (await bench.boxes.wait("sb-other-1")).end(DONE)
        await run
        assert (bench.coordinator.failed, len(bench.boxes.requested)) == (["broken"], 1)

    play(scene)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_sandboxes_of_a_step_the_last_one_is_adopted(order: int) -> None:
    async def scene() -> None:
        bench = Bench({"a": []})
        early, later = Box("a", 1, early=True), Box("a", 2)
        run = bench.begin(taken_over(*[early, later][::order], a="running"))
        await asyncio.sleep(0.05)
        assert (early.terminated, later.terminated) == (True, False)
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
        assert bench.coordinator.failed == []
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
        assert bench.coordinator.failed == []
        assert bench.coordinator.early_end.requested
        # ZenML would interrupt the other steps; the end of the run settles it.
        assert bench.records.recorder.states["a"].status == "running"

    play(scene)
    assert ("a", "stopped") in step_events(capsys.readouterr().out)


PREWARM: dict[str, Any] = {"prewarm": "cpu"}


async def with_one_that_waits(bench: Bench) -> tuple[asyncio.Task[None], Box, Box]:
    """Start a run in which step b's sandbox waits while step a runs."""
    run = bench.begin()
    first = await bench.boxes.wait("sb-a-1")
    bench.coordinator.expect({"a": 0.0})
    early = await bench.boxes.wait("sb-b-1")
    assert early.early
    return run, first, early


def test_an_early_sandbox_that_ends_before_its_turn_is_replaced() -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, **PREWARM)
        run, first, early = await with_one_that_waits(bench)
        reading = asyncio.Event()

        async def never(_: Box) -> None:
            # Its worker is gone: whoever writes to it asks again and again.
            reading.set()
            await asyncio.Event().wait()

        early.reads = never
        first.end(DONE)
        await reading.wait()
        early.end(KILLED)
        (await bench.boxes.wait("sb-b-2")).end(DONE)
        await run
        assert bench.coordinator.succeeded

    play(scene)


def test_an_early_sandbox_that_ends_right_after_its_turn_was_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, **PREWARM)
        run, first, early = await with_one_that_waits(bench)

        async def slow_answer(box: Box) -> None:
            # It has read its go, but that is not known yet.
            box.end(FAILED)
            await asyncio.sleep(0.05)

        early.reads = slow_answer
        first.end(DONE)
        await run
        assert bench.coordinator.failed == ["b"]
        assert len(bench.boxes.requested) == 2

    play(scene)
    assert step_events(capsys.readouterr().out)[-1] == ("b", "failed")


def test_an_early_sandbox_in_use_is_not_discarded() -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]}, **PREWARM)
        run, first, early = await with_one_that_waits(bench)

        async def meanwhile(_: Box) -> None:
            bench.coordinator._context.ahead.discard_all()
            await asyncio.sleep(0)

        early.reads = meanwhile
        first.end(DONE)
        await asyncio.sleep(0.05)
        assert not early.terminated
        early.end(DONE)
        await run
        assert bench.coordinator.succeeded

    play(scene)
