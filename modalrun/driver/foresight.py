"""Whose turn comes soon, by what earlier runs took. Pure: the caller has the clock."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from modalrun.driver.scheduler import State

USUAL_LEAD = 5.0
"""Seconds that a sandbox is taken to need until its step begins, before one has been seen."""


@dataclass(frozen=True)
class Due:
    """What is to be done now.

    Attributes:
        steps: The steps whose sandboxes are to be created now, in the graph's order.
        look_again: When the next one is due if nothing happens; None where nobody knows.
    """

    steps: tuple[str, ...]
    look_again: float | None = None


class Foresight:
    """Expects when running steps end, and so whose turn comes next.

    Attributes:
        expected: How many seconds each step takes, from earlier runs; steps may lack.
    """

    def __init__(
        self, graph: Mapping[str, Collection[str]], *, suited: Collection[str], most: int
    ) -> None:
        """
        Args:
            graph: Each step -> the steps it waits for.
            suited: The steps whose sandboxes may be created early.
            most: How many sandboxes may wait at once.
        """
        self._graph = graph
        self._suited = frozenset(suited)
        self._most = most
        self._began: dict[str, tuple[float, bool]] = {}
        self._startups: list[float] = []
        self.expected: Mapping[str, float] = {}

    @property
    def lead(self) -> float:
        """Seconds from the creation of a sandbox until its step begins: the median of this run."""
        return statistics.median(self._startups) if self._startups else USUAL_LEAD

    def saw_startup(self, seconds: float) -> None:
        """A sandbox needed so long until its step began."""
        # Clocks of two machines are compared for it.
        self._startups.append(max(0.0, seconds))

    def began(self, step: str, at: float, *, early: bool) -> None:
        """A step's sandbox was created, or, where it had been created early, told to go."""
        self._began[step] = (at, early)

    def due(
        self,
        states: Mapping[str, State],
        waiting: int,
        now: float,
        *,
        tried: Collection[str] = (),
    ) -> Due:
        """Whose sandbox is to be created now.

        A step's turn comes soon when all steps that it waits for are done or running, and the last
        of them is expected to end within the time that a sandbox needs.

        Args:
            states: Where each step stands.
            waiting: How many sandboxes wait already.
            now: On the clock of `began`.
            tried: The steps whose sandboxes were created early before: once is enough.
        """
        moments = {
            step: moment
            for step in self._graph
            if step in self._suited
            and step not in tried
            and states[step] is State.WAITING
            and (moment := self._moment(step, states)) is not None
        }
        due = [step for step, moment in moments.items() if moment <= now]
        chosen = due[: max(0, self._most - waiting)]
        later = [moment for moment in moments.values() if moment > now]
        return Due(tuple(chosen), min(later, default=None))

    def _moment(self, step: str, states: Mapping[str, State]) -> float | None:
        """When a step's sandbox has to be created to be ready in time; None if unknown."""
        ends = [self._end(parent) for parent in self._graph[step] if not _done(states[parent])]
        running = all(
            states[parent] is State.RUNNING or _done(states[parent]) for parent in self._graph[step]
        )
        known = [end for end in ends if end is not None]
        if not ends or not running or len(known) < len(ends):
            return None
        return max(known) - self.lead

    def _end(self, step: str) -> float | None:
        """When a running step is expected to end."""
        seconds = self.expected.get(step)
        began = self._began.get(step)
        if seconds is None or began is None:
            return None
        at, early = began
        return at + (0.0 if early else self.lead) + seconds


def _done(state: State) -> bool:
    return state is State.SUCCEEDED
