"""Sandboxes that are created before their step's turn, so that they have started when it comes."""

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
from modalrun.run.run_plan import PlannedStep, RunPlan

if TYPE_CHECKING:
    from modalrun.modal_api.step_sandboxes import StepSandbox

LONGEST_WAIT = 60.0
"""Seconds after which a sandbox that waits ends by itself: its turn doesn't come soon at all."""


def longest_wait(timeout: float) -> float:
    """How long a sandbox with a timeout may wait: a tenth of it, which its step may then lack."""
    return min(LONGEST_WAIT, timeout / 10)


@dataclass(eq=False)
class _Early:
    """One sandbox that was created early.

    Attributes:
        given_up: Set when it isn't wanted any more.
        created: Set when it was created, or was given up.
        member: The sandbox, while it can be used.
        since: When it was created.
    """

    given_up: asyncio.Event = field(default_factory=asyncio.Event)
    created: asyncio.Event = field(default_factory=asyncio.Event)
    member: StepSandbox | None = None
    since: float = 0.0

    @property
    def waited(self) -> float:
        """Seconds since its creation."""
        return time.time() - self.since


class Ahead:
    """Looks ahead, and keeps the sandboxes that wait."""

    def __init__(
        self,
        plan: RunPlan,
        *,
        create: Callable[[PlannedStep, asyncio.Event], Awaitable[StepSandbox]],
        tell: Callable[..., None],
        beside: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        """
        Args:
            plan: The run.
            create: Creates a sandbox that waits.
            tell: Writes an event of a step.
            beside: Has something done that nothing waits for.
        """
        self._steps = {step.name: step for step in plan.steps}
        self._create = create
        self._tell = tell
        self._beside = beside
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
        self.wanted = bool(suited)
        self.foresight = Foresight(
            {step.name: step.upstream for step in plan.steps},
            suited=suited,
            most=plan.settings.max_parallelism or len(plan.steps),
        )

    def look(self, states: Mapping[str, State]) -> None:
        """Create what is due, and look again when the next one is.

        Args:
            states: Where each step stands; looked at again then.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.wanted or not self.foresight.expected:
            return
        now = time.time()
        due = self.foresight.due(states, len(self._early), now, tried=self._tried)
        for name in due.steps:
            self._tried.add(name)
            early = self._early[name] = _Early()
            self._beside(self._see_through(self._steps[name], early))
        if due.look_again is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(due.look_again - now, self.look, states)

    async def take(self, step: str) -> tuple[StepSandbox, float] | None:
        """A step's turn has come: have its sandbox go on.

        Returns:
            The sandbox and how many seconds it has waited; None where there is none to be had.
        """
        early = self._early.get(step)
        if early is None:
            return None
        await early.created.wait()
        # From now on it is the step's: it is neither discarded nor missed when it ends.
        self._early.pop(step, None)
        member, early.member = early.member, None
        if member is None:
            return None
        waited = early.waited
        if await self._go(member):
            return member, waited
        self._tell_waiting(step, member, wasted=waited)
        return None

    async def _go(self, member: StepSandbox) -> bool:
        """Tell a sandbox to go on; returns whether it has heard it, as far as can be known."""
        writing = asyncio.ensure_future(member.write(f"{GO}\n"))
        ending = asyncio.ensure_future(member.ended())
        # Where its worker is gone the writing has no end.
        await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not writing.done():
            writing.cancel()
            # Only a step that has begun ends so.
            return not ending.result().is_infrastructure
        ending.cancel()
        try:
            writing.result()
        except ModalrunError:
            # It has ended, or is of no use.
            await member.terminate()
            return False
        return True

    def discard(self, step: str) -> None:
        """A step's turn doesn't come: end its sandbox, if it has one."""
        early = self._early.pop(step, None)
        if early is None:
            return
        early.given_up.set()
        member, early.member = early.member, None
        if member is not None:
            self._tell_waiting(step, member, wasted=early.waited)
            self._beside(member.terminate())

    def discard_all(self) -> None:
        """End all that wait."""
        for step in list(self._early):
            self.discard(step)

    async def _see_through(self, step: PlannedStep, early: _Early) -> None:
        """Create a sandbox and watch it until it has ended or is used."""
        from modalrun.modal_api.step_sandboxes import GivenUp, Refused

        try:
            member = early.member = await self._create(step, early.given_up)
        except (GivenUp, Refused):
            # At its turn it is asked for again, and then the answer counts.
            self._early.pop(step.name, None)
            return
        finally:
            early.since = time.time()
            early.created.set()
        if early.given_up.is_set():
            early.member = None
            await member.terminate()
            return
        self._tell_waiting(step.name, member, gpu=member.gpu)
        end = await member.ended()
        if early.member is member:
            # Nobody has used it: it counts as if it had never been.
            early.member = None
            self._early.pop(step.name, None)
            self._tell_waiting(
                step.name,
                member,
                wasted=early.waited,
                exit_code=end.exit_code,
                reason=end.reason,
            )

    def _tell_waiting(self, step: str, member: StepSandbox, **more: Any) -> None:
        # The step may be at a later attempt already.
        self._tell(step, "waiting", attempt=member.attempt, sandbox=member.id, **more)
