"""Create a sandbox with the first GPU type that Modal has a place for, within limits.

Modal queues a sandbox with a GPU, and the SDK waits up to 21 minutes for its place
(`modal/sandbox/_impl_v1.py:88`, 1.6.4). Here each type has a limit of its own, and the wait can be
given up. The SDK terminates the sandbox whose creation is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from modalrun.errors import CapacityError, ConflictError, ModalrunError, UnknownOutcomeError
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sandboxes.connection_pool import FIRST_PAUSE, LONGEST_PAUSE
from modalrun.run.capacity_wait import CapacityWait
from modalrun.util.backoff import pauses
from modalrun.util.timeformat import duration_of

if TYPE_CHECKING:
    import modal

T = TypeVar("T")

GPU_WAIT_SECONDS = 90
"""How long a type is waited for while other types remain."""

NOTICE_SECONDS = 5.0
"""How long a wait lasts before it is told."""

SDK_PATIENCE = 20 * 60.0
"""After this time the SDK's error means that it has given up, not that Modal refuses."""

ANSWER_SECONDS = 5.0
"""How long Modal may take to answer when a creation is cancelled."""


class GivenUp(Exception):
    """The sandbox is not needed any more; nothing was created."""


class Unanswered(GivenUp):
    """The sandbox is not needed any more; Modal has not answered, and may create it yet."""


@dataclass
class CapacitySearch(Generic[T]):
    """Ask for one sandbox with each of its GPU types in turn.

    Attributes:
        prepare: Called before each request; its time does not count.
        create: Creates the sandbox with a GPU; None for none.
        find: Finds the running sandbox by its name.
        given_up: Ends the search when it is set.
        gpus: The types, the preferred one first; none for a CPU sandbox.
        gpu_wait: Seconds to wait for each; None for `GPU_WAIT_SECONDS`, and `longest` for the
            last one.
        longest: Seconds that the last type may take.
        on_wait: Called with what is waited for, and with None when that wait is over.
        say: Called with a message when another type is asked for.
    """

    prepare: Callable[[], Awaitable[object]]
    create: Callable[[str | None], Awaitable[T]]
    find: Callable[[], Awaitable[modal.Sandbox]]
    given_up: asyncio.Event
    gpus: Sequence[str]
    gpu_wait: float | None
    longest: float
    on_wait: Callable[[CapacityWait | None], None]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self._until: float | None = None
        self._told: CapacityWait | None = None
        self._overall: CapacityWait | None = None
        self._turns: set[str] = set()
        # What became of each type.
        self._tried: dict[str, str] = {}
        self._waited: dict[str, float] = {}

    async def once(self) -> T:
        """Ask for each type once.

        Raises:
            CapacityError: Modal has none of them; or it limits the rate of creations.
            ConflictError: Modal could not start the sandbox.
            GivenUp: The search was given up.
            UnknownOutcomeError: It was given up, and Modal has not answered yet.
            ModalrunError: As `create`.
        """
        if not self.gpus:
            await self.prepare()
            return await self.create(None)
        for gpu, following in zip(self.gpus, [*self.gpus[1:], None], strict=True):
            limit = self._limit(last=following is None)
            if limit <= 0:
                continue
            await self.prepare()
            began = time.monotonic()
            try:
                if (created := await self._ask(gpu, following, limit)) is not None:
                    return created
                waited = time.monotonic() - began
                tried = f" (waited {duration_of(waited, whole=True)})"
                self._waited[gpu] = self._waited.get(gpu, 0.0) + waited
                self._tried[gpu] = f"waited {duration_of(self._waited[gpu], whole=True)}"
            except CapacityError as error:
                self._tried.setdefault(gpu, f"refused: {error.__cause__ or error.message}")
                if error.rate_limited or isinstance(error, ConflictError):
                    raise
                tried = ""
            first = gpu not in self._turns
            self._turns.add(gpu)
            if following is not None and first:
                self.say(f"Modal has no {gpu} now{tried}; asking for {following} instead")
        tried = ", ".join(f"{gpu} ({what})" for gpu, what in self._tried.items())
        how = ": '--wait-for-capacity 2h', or 'wait_for_capacity' in the orchestrator's settings"
        raise CapacityError(
            f"Modal has no place for the sandbox: {tried}.",
            hint="Try again later, name more GPU types or another region, or wait longer"
            f"{how if self._until is None else ''}.",
        )

    async def within(self, seconds: float) -> T:
        """Ask for the types again and again until the time is up; raises as `once`.

        The time counts from the first call, also after a sandbox that could not start.
        """
        began = time.monotonic()
        self._until = self._until or began + seconds
        everything = " or ".join(self.gpus) or "capacity"
        each = self.gpu_wait or GPU_WAIT_SECONDS
        longer = "10m" if each < 600 else f"{2 * each:.0f}s"
        self._overall = self._overall or CapacityWait(everything, None, time.time())
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        said, hinted = "", False
        try:
            while True:
                try:
                    return await self.once()
                except ConflictError:
                    raise
                except CapacityError as error:
                    left = self._until - time.monotonic()
                    if left <= 0:
                        raise
                    if not self._waited and error.message != said:
                        said = error.message
                        self.say(f"{said.rstrip('.')}; asking again")
                    if self._waited and not hinted:
                        hinted = True
                        self.say(
                            f"Modal has no {everything} yet; asking again. Each request is new and"
                            " keeps no place in Modal's queue. To wait longer for each type:"
                            " 'gpu_wait' in the orchestrator's settings, or"
                            f" '--set settings.orchestrator.gpu_wait={longer}'"
                        )
                    if not error.rate_limited and time.monotonic() - began >= NOTICE_SECONDS:
                        self._tell(self._overall)
                await sleep(min(next(waits), left), self.given_up)
        finally:
            self._tell(None)

    def _tell(self, wait: CapacityWait | None) -> None:
        if wait != self._told:
            self._told = wait
            self.on_wait(wait)

    def _limit(self, *, last: bool) -> float:
        others_remain = not last or (self._until is not None and len(self.gpus) > 1)
        limit = self.gpu_wait
        if limit is None:
            limit = GPU_WAIT_SECONDS if others_remain else self.longest
        return limit if self._until is None else min(limit, self._until - time.monotonic())

    async def _ask(self, gpu: str, following: str | None, limit: float) -> T | None:
        """Ask for one type until Modal has a place; return None when the time is up."""
        if self.given_up.is_set():
            raise GivenUp
        creation = asyncio.ensure_future(self._keep_asking(gpu))
        # Nobody reads an error after a cancellation.
        creation.add_done_callback(lambda done: done.cancelled() or done.exception())
        given_up = asyncio.ensure_future(self.given_up.wait())
        since, notice = time.time(), min(NOTICE_SECONDS, limit)
        either = {creation, given_up}
        first = asyncio.FIRST_COMPLETED
        try:
            done, _ = await asyncio.wait(either, timeout=notice, return_when=first)
            if not done and limit > notice:
                # The turns of a type after its first one would be told again and again.
                again = gpu in self._turns
                self._tell(self._overall if again else CapacityWait(gpu, following, since))
                await asyncio.wait(either, timeout=limit - notice, return_when=first)
        finally:
            given_up.cancel()
            if gpu not in self._turns:
                self._tell(None)
        if creation.done():
            return creation.result()
        answered = await self._running() is not None
        creation.cancel()
        await asyncio.wait({creation}, timeout=ANSWER_SECONDS)
        # It may have been answered meanwhile, and its name must be free for the next type.
        answered = await self._withdraw() or answered
        if not self.given_up.is_set():
            return None
        if not answered:
            raise UnknownOutcomeError("The sandbox was given up before Modal had answered.")
        raise GivenUp

    async def _keep_asking(self, gpu: str) -> T:
        """Ask again when the SDK has given up, until this is cancelled."""
        while True:
            began = time.monotonic()
            try:
                return await self.create(gpu)
            except CapacityError:
                if time.monotonic() - began < SDK_PATIENCE:
                    raise

    async def _withdraw(self) -> bool:
        """Terminate the sandbox until it is not found any more; return whether it was found."""
        found = False
        for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
            sandbox = await self._running()
            if sandbox is None:
                break
            found = True
            with contextlib.suppress(ModalrunError, asyncio.TimeoutError), translated():
                await asyncio.wait_for(sandbox.terminate.aio(), ANSWER_SECONDS)
            await asyncio.sleep(pause)
        return found

    async def _running(self) -> modal.Sandbox | None:
        """Find the sandbox while it runs or waits; None also if Modal can't be asked."""
        with contextlib.suppress(ModalrunError, asyncio.TimeoutError), translated():
            return await asyncio.wait_for(self.find(), ANSWER_SECONDS)
        return None


async def sleep(seconds: float, given_up: asyncio.Event) -> None:
    """Sleep; raise GivenUp as soon as the sandbox is not needed any more."""
    if seconds > 0 and not given_up.is_set():
        try:
            await asyncio.wait_for(given_up.wait(), seconds)
        except asyncio.TimeoutError:
            return
    if given_up.is_set():
        raise GivenUp
