"""Coordinate the steps of a static pipeline: start each when its turn comes, end the run early."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from modalrun.driver.graph.capacity_waits import CapacityWaits
from modalrun.driver.graph.lease import Lease
from modalrun.driver.graph.recorder import AsyncRecorder
from modalrun.driver.graph.scheduler import (
    OTHER_FAILED,
    Action,
    FailureMode,
    Scheduler,
    Skip,
    State,
)
from modalrun.driver.graph.static_step import EarlyEnd, RunContext, StaticStep
from modalrun.driver.graph.takeover import Takeover
from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
from modalrun.driver.processes.tasks import Tasks
from modalrun.run.finished_step import end_event
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import emit_step_event, log_line, write_event
from modalrun.run.step_order import kind_of

if TYPE_CHECKING:
    from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox


class Coordinator:
    """Start each step when its turn comes, and run it to its end.

    Attributes:
        sandboxes: The step sandboxes of the run.
        failed: Why steps have failed, by their names, the first one first.
        early_end: Whether, why and how the run ends early.
        waits: What steps wait for.
    """

    def __init__(
        self, manifest: RunManifest, sandboxes: WarmSandboxes, recorder: AsyncRecorder
    ) -> None:
        self.sandboxes = sandboxes
        self.failed: dict[str, str] = {}
        self.early_end = EarlyEnd()
        self.waits = CapacityWaits(recorder)
        plan = manifest.plan
        self._manifest = manifest
        self._background = Tasks()
        self._scheduler = Scheduler(
            {step.name: step.upstream for step in plan.steps},
            mode=FailureMode(manifest.failure_mode),
            max_parallelism=plan.settings.max_parallelism,
        )
        self._context = RunContext(
            manifest=manifest,
            sandboxes=sandboxes,
            recorder=recorder,
            waits=self.waits,
            background=self._background,
            early_end=self.early_end,
            stop=self.stop,
        )
        self._steps = {step.name: StaticStep(step, self._context) for step in plan.steps}
        self._kinds = {step.name: kind_of(step.sandbox) for step in plan.steps if step.sandbox}
        sandboxes.expected = self._expected
        self._finished = asyncio.Event()

    @property
    def succeeded(self) -> bool:
        """Whether every step has succeeded."""
        return self._scheduler.succeeded

    async def run(self, taken: Takeover | None = None) -> None:
        """Run until every step is in a final state, from what an earlier driver has left."""
        done = set(self._manifest.done)
        for name, state in sorted(self._manifest.done.items()):
            emit_step_event(name, state)
        if taken is not None:
            for name in sorted(taken.successful & self._steps.keys() - done):
                write_event(end_event(taken.records[name], time.time()))
            done |= taken.successful
            # Until it has ended, a superfluous sandbox may run its step.
            superfluous = taken.restore(self._steps, done)
            await asyncio.gather(*(_end(sandbox) for sandbox in superfluous))
        adopted = [name for name, step in self._steps.items() if step.attempts.sandbox]
        failed = [name for name, step in self._steps.items() if step.failed_before]
        self._scheduler.restore(done, {*adopted, *failed})
        for name in adopted:
            self._start(name)
        # Before any step starts that their failure forbids.
        await asyncio.gather(*(self._start(name) for name in failed))
        self._apply(self._scheduler.start())
        await self._finished.wait()
        await self._background.wait()
        await self.sandboxes.close()

    async def first_created(self, limit: float) -> None:
        """Wait until the sandboxes of the first steps are created, for `limit` seconds at most."""
        first = [
            self._steps[name].created.wait()
            for name, state in self._scheduler.states.items()
            if state is State.RUNNING
        ]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*first), limit)

    def stop(self, reason: str) -> None:
        """Start nothing new, as requested for a reason (a part of a sentence)."""
        self.early_end.requested = True
        self._start_nothing(reason)

    def give_up(self, reason: str, *, timed_out: bool = False) -> None:
        """End the run at once: terminate running steps too, which fail if `timed_out`."""
        self.early_end.gave_up = True
        # A run that is being stopped ends as stopped, however long that takes.
        self.early_end.timed_out = timed_out and not self.early_end.requested
        self.stop(reason)
        self._terminate_running(reason)

    def _start_nothing(self, reason: str) -> None:
        if self.early_end.reason is None:
            self.early_end.reason = reason
            log_line(f"Nothing more is started: {reason}.")
        self.early_end.event.set()
        self.early_end.refusing.set()
        self._apply(self._scheduler.stop(reason))

    def _terminate_running(self, reason: str) -> None:
        if not self.early_end.termination:
            self.early_end.termination = f"It was ended early: {reason}."
        for step in self._steps.values():
            step.terminate()

    def _apply(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Skip):
                log_line(action.reason)
                emit_step_event(action.step, "not run", reason=action.reason)
            else:
                self._start(action.step)
        self.sandboxes.look()
        if self._scheduler.finished:
            self._finished.set()

    def _start(self, name: str) -> asyncio.Task[None]:
        return self._background.start(self._run_step(self._steps[name]))

    async def _run_step(self, step: StaticStep) -> None:
        name = step.attempts.name
        succeeded = await step.run()
        if step.failed is not None:
            self.failed[name] = step.failed
            if self._manifest.failure_mode != FailureMode.CONTINUE_ON_FAILURE.value:
                self.early_end.refusing.set()
            if self._manifest.failure_mode == FailureMode.FAIL_FAST.value:
                reason = f"step `{name}` failed"
                self._start_nothing(reason)
                self._terminate_running(reason)
        elif not succeeded:
            # The step that has failed is yet to end, if nothing else has stopped the run.
            self._apply(self._scheduler.stop(OTHER_FAILED))
        self._apply(self._scheduler.ended(name, succeeded=succeeded))

    def _expected(self) -> set[str]:
        """Return the kinds of sandboxes that steps need which are still to come."""
        return {
            self._kinds[name]
            for name, state in self._scheduler.states.items()
            if state is State.WAITING
            or (state is State.RUNNING and self._steps[name].attempts.sandbox is None)
        }


async def _end(sandbox: StepSandbox | Lease) -> None:
    await sandbox.terminate()
    await sandbox.ended()
