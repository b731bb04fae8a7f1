"""Run the isolated steps of a dynamic pipeline in sandboxes, for the threads of ZenML's runner."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from modalrun.driver.graph.step_attempts import StepAttempts, unwind
from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
from modalrun.driver.processes.process import (
    log_failed_termination,
    reason_of,
    supervisors_reason,
)
from modalrun.errors import RunFailedError
from modalrun.plan.isolated_step import IsolatedStep
from modalrun.run import sandbox_exit
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import StepState
from modalrun.run.manifest import RunManifest
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.tags import step_sandbox_name

if TYPE_CHECKING:
    from modalrun.modal_api.sandboxes.step_sandboxes import StepSandboxes

ENDING = "The run is being ended."

ENDED_EARLY = "It was ended early: the run has failed."
"""Why a step ends that ZenML stops: only `fail_fast` does that."""

T = TypeVar("T")


@dataclass
class _Step:
    """A submitted step; `over` is set when `end`, its final end, is known."""

    step: IsolatedStep
    attempts: StepAttempts
    over: threading.Event = field(default_factory=threading.Event)
    end: SandboxExit | None = None
    # Whether it occupies one of the `max_parallelism` slots.
    has_slot: bool = False
    # Whether ZenML has asked to stop it.
    cancelled: bool = False
    # Set when it gets no more sandboxes.
    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    # The final status in ZenML, where the sandbox's end does not say enough.
    recorded: str | None = None


class IsolatedSteps:
    """Create sandboxes and supervise them until they end, in an event loop of its own.

    A sandbox that is lost is replaced, for the same record, as often as the settings allow.

    Attributes:
        manifest: The run.
        on_end: Called from another thread whenever a step has ended for good.
        on_waits: Called with what steps wait for now, by their names ("waiting for H100").
        end_of_record: Called from another thread with the id of a step's record; returns the
            status that ZenML has recorded for good, None while it waits for the step's end.
    """

    def __init__(self, manifest: RunManifest, sandboxes: StepSandboxes | None = None) -> None:
        """Connect to Modal, or to other `sandboxes`; raise ModalrunError for a bad token."""
        self.manifest = manifest
        self.on_end: Callable[[], None] = lambda: None
        self.on_waits: Callable[[dict[str, str]], None] = lambda waits: None
        self.end_of_record: Callable[[str], str | None] = lambda step_run: None
        self._steps: dict[str, _Step] = {}
        # Of each step of each run, over all of its records.
        self._counts: dict[tuple[str, str], int] = {}
        self._closed_runs: set[str] = set()
        self._waits: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="sandboxes", daemon=True).start()
        if sandboxes is None:
            from modalrun.modal_api.sandboxes.step_sandboxes import StepSandboxes

            sandboxes = StepSandboxes(manifest)
        self._sandboxes = WarmSandboxes(manifest, sandboxes)
        self._ending = False
        self._slots = asyncio.Semaphore(manifest.plan.settings.max_parallelism or sys.maxsize)
        self._wait_for(self._sandboxes.open())

    def submit(self, step: IsolatedStep) -> None:
        """Create the sandbox of a step, as soon as `max_parallelism` allows it.

        Raises:
            RunFailedError: Modal refuses it, or the run is being ended.
        """
        self._begin(step, self._start)

    def take_over(self, step: IsolatedStep) -> None:
        """Supervise a step that an earlier process of this run has submitted."""
        self._begin(step, self._find)

    def exit_of(self, step_run: str, *, wait: bool = False) -> SandboxExit | None:
        """Return how a step has ended for good; None while it has not.

        Raises:
            KeyError: This process has neither submitted nor taken over the step.
        """
        submitted = self._steps[step_run]
        if wait:
            submitted.over.wait()
        return submitted.end

    def stop(self, step_run: str) -> None:
        """Terminate a step's sandbox; nothing happens if it has ended or is not known."""
        if (submitted := self._steps.get(step_run)) is not None:
            submitted.cancelled = True
            self._loop.call_soon_threadsafe(submitted.given_up.set)
            if (sandbox := submitted.attempts.sandbox) is not None:
                self._wait_for(sandbox.terminate())

    def close_run(self, run_id: str) -> None:
        """Create no more sandboxes for the steps of a run, or of a child pipeline's run."""
        self._closed_runs.add(run_id)
        self._give_up(run_id)

    def reopen(self) -> None:
        """Create sandboxes again: another process continues the run."""
        self._closed_runs.clear()
        self._ending = False

    def terminate_all(self) -> None:
        """Terminate every sandbox of the run, also those that are being created.

        At the run's timeout the code in them may unwind before.
        """
        self._ending = True
        self._give_up()
        if (reason := supervisors_reason()) is not None:
            self._wait_for(self._unwind(reason))
        self._wait_for(log_failed_termination(self._sandboxes.terminate_all()))

    async def _unwind(self, reason: str) -> None:
        sandboxes = [step.attempts.sandbox for step in self._steps.values()]
        await asyncio.gather(*(unwind(sandbox, reason) for sandbox in sandboxes if sandbox))

    def _give_up(self, run_id: str | None = None) -> None:
        """Wait no more for the sandboxes of a run's steps; None for those of all runs."""
        for submitted in list(self._steps.values()):
            if run_id in {None, submitted.step.run_id}:
                self._loop.call_soon_threadsafe(submitted.given_up.set)

    def _begin(
        self, step: IsolatedStep, begin: Callable[[_Step], Coroutine[Any, Any, None]]
    ) -> None:
        attempts = StepAttempts(
            self.manifest,
            step.name,
            step.sandbox,
            record=step.step_run,
            dynamic_run=step.run_id,
            child=step.child,
        )
        attempts.failures = step.attempt - 1
        submitted = self._steps[step.step_run] = _Step(step, attempts)
        if self._ending or step.run_id in self._closed_runs:
            submitted.given_up.set()
        try:
            self._wait_for(begin(submitted))
        except BaseException:
            # It will have no end.
            del self._steps[step.step_run]
            raise
        asyncio.run_coroutine_threadsafe(self._supervise(submitted), self._loop)

    async def _start(self, submitted: _Step) -> None:
        """Wait for a slot, and create the first sandbox of a step."""
        given_up = asyncio.create_task(submitted.given_up.wait())
        slot = asyncio.create_task(self._slots.acquire())
        await asyncio.wait({given_up, slot}, return_when=asyncio.FIRST_COMPLETED)
        given_up.cancel()
        submitted.has_slot = not slot.cancel()
        try:
            if submitted.given_up.is_set():
                reason = "The step was not started: the run is being ended."
                submitted.attempts.emit("not run", reason=reason)
                raise RunFailedError(reason)
            await self._create(submitted)
        except BaseException:
            self._release_slot(submitted)
            raise

    async def _create(self, submitted: _Step) -> None:
        """Create a sandbox for a step, or raise RunFailedError."""
        step, attempts = submitted.step, submitted.attempts
        key = (step.run_id, step.name)
        attempts.count = max(self._counts.get(key, 0), attempts.count, step.attempt - 1)
        self._counts[key] = attempts.count + 1
        sandbox = await attempts.create(
            self._sandboxes, submitted.given_up, on_wait=self._tell_wait
        )
        if sandbox is None:
            attempts.emit("stopped")
            raise RunFailedError(ENDING)
        if isinstance(sandbox, SandboxExit):
            attempts.emit_end("failed", sandbox)
            raise RunFailedError(sandbox.reason)
        attempts.begin(sandbox)
        if submitted.cancelled:
            await sandbox.terminate()

    def _tell_wait(self, step: str, wait: CapacityWait | None) -> None:
        self._waits.pop(step, None)
        if wait is not None:
            self._waits[step] = wait.text()
        self.on_waits(dict(self._waits))

    async def _find(self, submitted: _Step) -> None:
        """Find the running sandbox of a step that another process has created."""
        if not self._slots.locked():
            submitted.has_slot = await self._slots.acquire()
        run_id, step = self.manifest.run_id, submitted.step
        last = step.attempt + self.manifest.plan.settings.infrastructure_retries
        names = [
            step_sandbox_name(run_id, step.name, number, step.run_id)
            for number in range(step.attempt, last + 1)
        ]
        for sandbox in await self._sandboxes.running(names):
            if sandbox.record == step.step_run:
                submitted.attempts.count = sandbox.attempt
                submitted.attempts.begin(sandbox)

    async def _supervise(self, submitted: _Step) -> None:
        """Wait for the end of a step, with as many sandboxes as that takes."""
        attempts = submitted.attempts
        try:
            while True:
                end = await attempts.wait() if attempts.sandbox else sandbox_exit.LOST
                if attempts.keeps_entrypoint and sandbox_exit.is_of_entrypoint(end):
                    end = await self._explained(submitted, end)
                if not await self._is_restarted(submitted, end):
                    break
            if end.killed and not submitted.cancelled:
                # ZenML is not asked from here: what it used is told in the reason only.
                used = await attempts.used(submitted.step.step_run)
                end = end.with_peak(used.peak_memory) if used else end
            if submitted.cancelled:
                end = sandbox_exit.ended_by_driver(end, ENDED_EARLY)
            state = await self._state(submitted, end)
        except Exception as error:
            # Neither a refusal nor a bug of modalrun may hang the run or pass for a success.
            end, state = SandboxExit(ExitKind.REFUSED, None, reason_of(error)), "failed"
        submitted.end = end
        again = f"{end.reason} It is tried again." if state == "retrying" else None
        attempts.emit_end(state, end, again)
        self._release_slot(submitted)
        submitted.over.set()
        await asyncio.to_thread(self.on_end)

    async def _state(self, submitted: _Step, end: SandboxExit) -> StepState:
        """Return the state that a step has reached with its end."""
        if end.kind is ExitKind.COMPLETED or submitted.recorded == "completed":
            return "completed"
        if submitted.cancelled and end.is_infrastructure:
            return "stopped"
        if submitted.given_up.is_set() or end.is_infrastructure:
            return "failed"
        recorded = await asyncio.to_thread(self.end_of_record, submitted.step.step_run)
        return "retrying" if recorded == "retrying" else "failed"

    async def _explained(self, submitted: _Step, end: SandboxExit) -> SandboxExit:
        """Blame the image's ENTRYPOINT for an end unless the step has recorded its own."""
        recorded = await asyncio.to_thread(self.end_of_record, submitted.step.step_run)
        return end if recorded is not None else sandbox_exit.of_entrypoint(end)

    async def _is_restarted(self, submitted: _Step, end: SandboxExit) -> bool:
        """Replace a sandbox that the infrastructure has lost; ZenML's record stays the same."""
        if not end.is_infrastructure or submitted.given_up.is_set():
            return False
        submitted.recorded = await asyncio.to_thread(self.end_of_record, submitted.step.step_run)
        if submitted.recorded is not None:
            return False
        reason = submitted.attempts.restart(end)
        if reason is None:
            return False
        submitted.attempts.emit_end("retrying", end, reason)
        await self._create(submitted)
        return True

    def _release_slot(self, submitted: _Step) -> None:
        if submitted.has_slot:
            submitted.has_slot = False
            self._slots.release()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
