"""Create sandboxes before their step's turn, so that they have started when it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modalrun.driver.foresight import Foresight
from modalrun.driver.scheduler import State
from modalrun.errors import ModalrunError
from modalrun.run.contract import GO
from modalrun.run.reporting import emit_step_event
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_exit import SandboxExit

if TYPE_CHECKING:
    from modalrun.modal_api.step_sandboxes import StepSandbox

LONGEST_WAIT = 60.0
"""Seconds after which a waiting sandbox ends: its step's turn is not near."""


def longest_wait(timeout: float) -> float:
    """Return how many seconds a sandbox may wait: at most a tenth of its timeout."""
    return min(LONGEST_WAIT, timeout / 10)


@dataclass(eq=False)
class _Early:
    """A sandbox that was created early; `sandbox` is set while it can be used."""

    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    # Also set once it was cancelled.
    created: asyncio.Event = field(default_factory=asyncio.Event)
    sandbox: StepSandbox | None = None
    since: float = 0.0

    @property
    def waited(self) -> float:
        """Seconds since its creation."""
        return time.time() - self.since


class Ahead:
    """Create early sandboxes when they are due, and keep them until they are used.

    Attributes:
        enabled: Whether any step's sandbox may be created early.
        foresight: Predicts whose turn is near.
    """

    def __init__(
        self,
        plan: RunPlan,
        states: Mapping[str, State],
        *,
        create: Callable[[str, asyncio.Event], Awaitable[StepSandbox | SandboxExit | None]],
        start_background: Callable[[Coroutine[Any, Any, Any]], object],
    ) -> None:
        """Prepare for a run.

        Args:
            plan: The run.
            states: The state of each step, which the scheduler changes.
            create: Creates a step's waiting sandbox, as `StepAttempts.create`.
            start_background: Starts a task.
        """
        self._states = states
        self._create = create
        self._start_background = start_background
        self._early: dict[str, _Early] = {}
        self._tried: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        prewarm = plan.settings.prewarm
        suited = [
            step.name
            for step in plan.steps
            if step.sandbox is not None
            and (prewarm == "all" or (prewarm == "cpu" and not step.sandbox.resources.gpus))
        ]
        self.enabled = bool(suited)
        self.foresight = Foresight(
            {step.name: step.upstream for step in plan.steps},
            suited=suited,
            most=plan.settings.max_parallelism or len(plan.steps),
        )

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Set how long each step takes; sandboxes may be created early from now on."""
        self.foresight.expected = seconds
        self.look()

    def begin(self, step: str, at: float, *, early: bool) -> None:
        """Note that a step's sandbox was created, or was created early and is now used."""
        self.foresight.began(step, at, early=early)
        self.look()

    def look(self) -> None:
        """Create the sandboxes that are due, and look again when the next one is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.enabled or not self.foresight.expected:
            return
        now = time.time()
        due, look_again = self.foresight.due(self._states, len(self._early), now, tried=self._tried)
        for name in due:
            self._tried.add(name)
            early = self._early[name] = _Early()
            self._start_background(self._supervise(name, early))
        if look_again is not None:
            self._timer = asyncio.get_running_loop().call_later(look_again - now, self.look)

    async def take(self, step: str) -> tuple[StepSandbox, float] | None:
        """Have a step's waiting sandbox begin the step.

        Returns:
            The sandbox and how many seconds it has waited; None if there is no usable one.
        """
        early = self._early.get(step)
        if early is None:
            return None
        await early.created.wait()
        # From now on it is the step's: it is neither discarded nor missed when it ends.
        self._early.pop(step, None)
        sandbox, early.sandbox = early.sandbox, None
        if sandbox is None:
            return None
        waited = early.waited
        if await self._release(sandbox):
            return sandbox, waited
        _emit_waiting(step, sandbox, wasted=waited)
        return None

    async def _release(self, sandbox: StepSandbox) -> bool:
        """Have a sandbox begin its step; return whether it did, as far as can be known."""
        writing = asyncio.ensure_future(sandbox.write(f"{GO}\n"))
        ending = asyncio.ensure_future(sandbox.ended())
        # Writing never ends if the sandbox's worker is gone.
        await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            writing.cancel()
            # Only a step that has begun ends so.
            return not ending.result().is_infrastructure
        ending.cancel()
        try:
            writing.result()
        except ModalrunError:
            # It has ended, or can't be used.
            await sandbox.terminate()
            return False
        return True

    def discard(self, step: str) -> None:
        """Terminate a step's waiting sandbox, if there is one."""
        early = self._early.pop(step, None)
        if early is None:
            return
        early.cancelled.set()
        sandbox, early.sandbox = early.sandbox, None
        if sandbox is not None:
            _emit_waiting(step, sandbox, wasted=early.waited)
            self._start_background(sandbox.terminate())

    def discard_all(self) -> None:
        """Terminate all waiting sandboxes."""
        for step in list(self._early):
            self.discard(step)

    async def _supervise(self, step: str, early: _Early) -> None:
        """Create a sandbox and watch it until it has ended or is used."""
        try:
            sandbox = await self._create(step, early.cancelled)
            if sandbox is None or isinstance(sandbox, SandboxExit):
                # It is created again at the step's turn, and then a refusal counts.
                self._early.pop(step, None)
                return
            early.sandbox = sandbox
        finally:
            early.since = time.time()
            early.created.set()
        if early.cancelled.is_set():
            early.sandbox = None
            await sandbox.terminate()
            return
        _emit_waiting(step, sandbox, gpu=sandbox.gpu)
        end = await sandbox.ended()
        if early.sandbox is sandbox:
            # It ended unused: it counts as if it had never been.
            early.sandbox = None
            self._early.pop(step, None)
            _emit_waiting(
                step, sandbox, wasted=early.waited, exit_code=end.exit_code, reason=end.reason
            )


def _emit_waiting(step: str, sandbox: StepSandbox, **fields: Any) -> None:
    # The step may be at a later attempt already.
    emit_step_event(step, "waiting", attempt=sandbox.attempt, sandbox=sandbox.id, **fields)
