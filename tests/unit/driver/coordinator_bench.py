"""Run a coordinator with fake sandboxes and a fake recorder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, cast

from modalrun.driver.graph.coordinator import Coordinator
from modalrun.driver.graph.takeover import Takeover
from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
from modalrun.modal_api.sandboxes.capacity import GivenUp
from modalrun.run import contract, events
from modalrun.run.events import StepEvent, StepState
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import StepMetadata
from modalrun.run.records import StepRecord
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.usage import StepUsage

DONE = SandboxExit(ExitKind.COMPLETED, 0, "The step completed.")
FAILED = SandboxExit(ExitKind.FAILED, 1, "It raised.")
KILLED = SandboxExit(ExitKind.TERMINATED, 137, "It was killed.")


class Box:
    """A step sandbox that ends when the test says so."""

    def __init__(self, step: str, attempt: int = 1) -> None:
        self.id = f"sb-{step}-{attempt}"
        self.step, self.attempt = step, attempt
        self.gpu: str | None = None
        self.record = ""
        self.tags: dict[str, str] = {}
        self.terminated = False
        self.fault: Exception | None = None
        self.told: list[str] = []
        self.written: list[str] = []
        self.unwinds = True
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
        self.written.append(text)
        if self.unwinds:
            self.end(FAILED)

    async def output_tail(self) -> str:
        return f"last words of {self.id}\n"

    async def told_usage(self) -> list[str]:
        return self.told

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
        box = Box(tags["modalrun-step"], attempt)
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
        self.failing = False
        self.cache_error: Exception = LookupError("of ZenML's")
        self.waits: list[dict[str, str]] = []
        self.exits: list[tuple[str, str]] = []
        self.exit_metadata: list[StepMetadata] = []
        self.peaks: list[tuple[str, int]] = []
        self.failures: list[tuple[str, bool]] = []
        self.lines: list[str] = []

    def step_state(self, step: str) -> StepRecord | None:
        return self.states.get(step)

    def store_waits(self, waits: dict[str, str]) -> None:
        self.waits.append(waits)

    def stop_requested(self) -> bool:
        return self.stopping

    def starts_nothing(self) -> bool:
        return self.failing

    def cached(self, step: str) -> bool:
        raise self.cache_error

    def record_metadata(self, step_run: str, metadata: StepMetadata | StepUsage) -> None:
        if isinstance(metadata, StepUsage):
            self.peaks.append((step_run, metadata.peak_memory))
        else:
            self.exits.append((step_run, metadata.sandbox_id))
            self.exit_metadata.append(metadata)

    def fail_step(
        self,
        step: str,
        reason: str,
        *,
        attempt: int,
        final: bool = False,
        lines: Sequence[str] = (),
    ) -> StepRecord:
        self.failures.append((reason, final))
        self.lines += lines
        again = not final and self.states[step].status == "running"
        self.states[step] = state(step, "retrying" if again else "failed")
        return self.states[step]

    def stop_step(self, step: str, reason: str) -> None:
        self.states[step] = state(step, "stopped")


class AsyncRecorder:
    """As `modalrun.driver.graph.recorder.AsyncRecorder`."""

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
        done: Mapping[str, StepState] | None = None,
        boxes: Any = None,
        **settings: Any,
    ) -> None:
        """Make a walk through a graph.

        Args:
            step: What its steps have in common.
            boxes: Creates other sandboxes than `Boxes` does.
        """
        sandbox = SandboxSpec(
            ("python", "-m", "supervisor"),
            "im-1",
            Resources(),
            300,
            env={contract.TIMEOUT: "300"},
        )
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
        self.boxes = Boxes()
        self.records = AsyncRecorder()
        manifest = RunManifest("run", plan, failure_mode, done=done or {})
        self.coordinator = Coordinator(
            manifest,
            WarmSandboxes(manifest, boxes or cast("Any", self.boxes)),
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
