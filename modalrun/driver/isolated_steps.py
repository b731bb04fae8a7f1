"""The sandboxes of a dynamic pipeline's isolated steps, for the threads of ZenML's runner."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modalrun.driver.sandbox_request import spec_of_attempt
from modalrun.errors import RunFailedError
from modalrun.plan.isolated_step import IsolatedStep
from modalrun.run import sandbox_exit
from modalrun.run.events import StepState
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import emit_step_event, log_line
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import SandboxSpec

if TYPE_CHECKING:
    from modalrun.modal_api.step_sandboxes import StepSandbox, StepSandboxes

END_SECONDS = 20.0
"""How long the end of all sandboxes is waited for."""

T = TypeVar("T")


@dataclass
class _Going:
    """A step that was submitted, until it has ended for good."""

    step: IsolatedStep
    over: threading.Event = field(default_factory=threading.Event)
    member: StepSandbox | None = None
    end: SandboxExit | None = None
    sandboxes: int = 0
    restarts: int = 0
    placed: bool = False
    unwanted: bool = False


class IsolatedSteps:
    """Creates sandboxes and sees them through to their ends, in a loop of its own.

    A sandbox that is lost is replaced, for the same record, as often as the run allows.

    Attributes:
        manifest: The run.
        on_end: Called from a thread of ours whenever a step has ended for good.
        may_go_on: Called from a thread of ours: whether ZenML would have a step executed (again),
            by the id of its record; False where the record has an end.
    """

    def __init__(self, manifest: RunManifest, fleet: StepSandboxes | None = None) -> None:
        """Connect.

        Args:
            manifest: The run; its variables are in the environment.
            fleet: Where the sandboxes come from; Modal, by the manifest, without it.

        Raises:
            ModalrunError: The token is not accepted.
        """
        self.manifest = manifest
        self.on_end: Callable[[], None] = lambda: None
        self.may_go_on: Callable[[str], bool] = lambda step_run: True
        self._going: dict[str, _Going] = {}
        self._sandboxes: dict[tuple[str, str], int] = {}
        self._closed: set[str] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="sandboxes", daemon=True).start()
        self._fleet = fleet or _fleet(manifest)
        self._given_up = asyncio.Event()
        self._room = asyncio.Semaphore(manifest.plan.settings.max_parallelism or sys.maxsize)
        self._ask(self._fleet.open())

    def submit(self, step: IsolatedStep) -> None:
        """Create the sandbox of a step, as soon as `max_parallelism` allows it.

        Raises:
            RunFailedError: Modal refuses it, or the run is being ended.
        """
        going = self._going[step.step_run] = _Going(step)
        self._ask(self._start(going))
        self._in_background(self._see_through(going))

    def take_over(self, step: IsolatedStep) -> None:
        """See a step through that an earlier process of this run has submitted."""
        going = self._going[step.step_run] = _Going(step)
        self._ask(self._find(going))
        self._in_background(self._see_through(going))

    def end_of(self, step_run: str, *, wait: bool = False) -> SandboxExit | None:
        """How a step has ended for good; None while it has not.

        Raises:
            KeyError: Neither submitted nor taken over by this process.
        """
        going = self._going[step_run]
        if wait:
            going.over.wait()
        return going.end

    def stop(self, step_run: str) -> None:
        """End the sandbox of a step now; nothing happens if it has ended, or is not known."""
        if (going := self._going.get(step_run)) is not None:
            going.unwanted = True
            if going.member is not None:
                self._ask(going.member.terminate())

    def start_nothing(self, run_id: str) -> None:
        """Create no more sandboxes for the steps of a run, or of a child pipeline's."""
        self._closed.add(run_id)

    def end_all(self) -> None:
        """End every sandbox of the run, also those that are being created."""
        self._loop.call_soon_threadsafe(self._given_up.set)
        try:
            self._ask(asyncio.wait_for(self._fleet.terminate_all(), END_SECONDS))
        except Exception as error:
            log_line(f"The step sandboxes may still run: {type(error).__name__}: {error}")

    async def _start(self, going: _Going) -> None:
        """Wait for a place, and create the first sandbox of a step.

        Raises:
            RunFailedError: There will be none.
        """
        waiting = asyncio.create_task(self._given_up.wait())
        place = asyncio.create_task(self._room.acquire())
        await asyncio.wait({waiting, place}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        going.placed = not place.cancel()
        try:
            if self._is_unwanted(going):
                reason = "The step was not started: the run is being ended."
                self._tell(going, "not run", reason=reason)
                raise RunFailedError(reason)
            await self._create(going)
        except BaseException:
            self._leave(going)
            raise

    async def _create(self, going: _Going) -> None:
        """Create a sandbox for a step.

        Raises:
            RunFailedError: Modal refuses it, or the run is being ended.
        """
        from modalrun.modal_api.step_sandboxes import GivenUp, Refused

        step = going.step
        key = (step.run_id, step.name)
        self._sandboxes[key] = max(self._sandboxes.get(key, 0), going.sandboxes, step.attempt - 1)
        self._sandboxes[key] += 1
        going.sandboxes = self._sandboxes[key]
        self._tell(going, "starting")
        try:
            going.member = await self._fleet.create(self._spec(going), self._given_up)
        except Refused as error:
            self._tell(going, "failed", reason=str(error))
            raise RunFailedError(f"Modal refuses the sandbox of '{step.name}': {error}") from error
        except GivenUp as error:
            self._tell(going, "stopped")
            raise RunFailedError("The run is being ended.") from error
        self._tell_running(going)
        if going.unwanted:
            await going.member.terminate()

    async def _find(self, going: _Going) -> None:
        """Find the sandbox of a step that somebody else has created, if it runs."""
        if not self._room.locked():
            going.placed = await self._room.acquire()
        for member in await self._fleet.running():
            if member.record == going.step.step_run:
                going.member, going.sandboxes = member, member.attempt
                self._tell_running(going)

    async def _see_through(self, going: _Going) -> None:
        """Wait for the end of a step, with as many sandboxes as that takes."""
        try:
            while True:
                end = sandbox_exit.LOST if going.member is None else await going.member.ended()
                if not await self._is_restarted(going, end):
                    break
        except RunFailedError as error:
            end = sandbox_exit.refused(error.message)
        except Exception as error:
            # A fault of ours must neither hang the run nor pass for a success.
            log_line("".join(traceback.format_exception(error)).rstrip())
            end = sandbox_exit.refused(f"a fault of modalrun's own: {error}")
        going.end = end
        state: StepState = "completed" if end.kind is ExitKind.COMPLETED else "failed"
        reason = None if end.kind is ExitKind.COMPLETED else end.reason
        self._tell(going, state, exit_code=end.exit_code, reason=reason)
        self._leave(going)
        going.over.set()
        await asyncio.to_thread(self.on_end)

    async def _is_restarted(self, going: _Going, end: SandboxExit) -> bool:
        """Replace a sandbox whose end was nobody's fault; ZenML's record stays the same.

        Raises:
            RunFailedError: Modal refuses another.
        """
        most = self.manifest.plan.settings.infrastructure_retries
        if not end.is_infrastructure or going.restarts >= most or self._is_unwanted(going):
            return False
        if not await asyncio.to_thread(self.may_go_on, going.step.step_run):
            return False
        going.restarts += 1
        again = f"It is started again ({going.restarts} of {most}), at no retry's cost."
        self._tell(going, "retrying", exit_code=end.exit_code, reason=f"{end.reason} {again}")
        await self._create(going)
        return True

    def _is_unwanted(self, going: _Going) -> bool:
        ending = self._given_up.is_set() or going.step.run_id in self._closed
        return ending or going.unwanted

    def _leave(self, going: _Going) -> None:
        """Make room for the next step."""
        if going.placed:
            going.placed = False
            self._room.release()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    def _spec(self, going: _Going) -> SandboxSpec:
        step = going.step
        return spec_of_attempt(
            self.manifest,
            step.name,
            step.sandbox,
            attempt=going.sandboxes,
            retries=going.restarts,
            record=step.step_run,
            dynamic_run=step.run_id,
        )

    def _tell_running(self, going: _Going) -> None:
        assert going.member is not None
        asked = going.step.sandbox.resources
        self._tell(
            going,
            "running",
            sandbox=going.member.id,
            gpu=going.member.gpu or asked.gpu,
            cpu=asked.cpu,
            memory=asked.memory,
        )

    def _tell(self, going: _Going, state: StepState, **more: Any) -> None:
        emit_step_event(going.step.name, state, attempt=max(going.sandboxes, 1), **more)


def _fleet(manifest: RunManifest) -> StepSandboxes:
    from modalrun.modal_api.step_sandboxes import StepSandboxes

    return StepSandboxes(
        manifest, {name: os.environ[name] for name in manifest.variables}, Path.cwd(), log_line
    )
