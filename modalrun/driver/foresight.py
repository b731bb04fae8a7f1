"""Predict from earlier runs whose turn comes soon. Pure: the caller has the clock."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping

from modalrun.driver.scheduler import State

USUAL_LEAD = 5.0
"""Assumed seconds from the creation of a sandbox to its step's begin, before one was measured."""


class Foresight:
    """Predict when running steps end, and so whose turn comes next.

    Attributes:
        expected: How many seconds each step takes, from earlier runs; steps may lack.
    """

    def __init__(
        self, graph: Mapping[str, Collection[str]], *, suited: Collection[str], most: int
    ) -> None:
        """Set the graph, the steps whose sandboxes may be created early, and how many may wait."""
        self._graph = graph
        self._suited = frozenset(suited)
        self._most = most
        self._began: dict[str, tuple[float, bool]] = {}
        self._startups: list[float] = []
        self.expected: Mapping[str, float] = {}

    @property
    def lead(self) -> float:
        """Median seconds from the creation of a sandbox to its step's begin in this run."""
        return statistics.median(self._startups) if self._startups else USUAL_LEAD

    def saw_startup(self, seconds: float) -> None:
        """Add the seconds that a sandbox took until its step began."""
        # They compare the clocks of two machines.
        self._startups.append(max(0.0, seconds))

    def began(self, step: str, at: float, *, early: bool) -> None:
        """Note when a step's sandbox was created, or when a waiting one began the step."""
        self._began[step] = (at, early)

    def due(
        self,
        states: Mapping[str, State],
        waiting: int,
        now: float,
        *,
        tried: Collection[str] = (),
    ) -> tuple[list[str], float | None]:
        """Return the steps whose sandboxes are due, and when the next one will be if it is known.

        A step's turn comes soon if all steps that it waits for are done or running, and the last
        of them is expected to end within the time that a sandbox needs to start.

        `waiting` sandboxes wait already. Sandboxes of the steps `tried` were created early before,
        which is not repeated. `now` is on the clock of `began`.
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
        later = [moment for moment in moments.values() if moment > now]
        return due[: max(0, self._most - waiting)], min(later, default=None)

    def _moment(self, step: str, states: Mapping[str, State]) -> float | None:
        """Return when a step's sandbox must be created to be ready in time; None if unknown."""
        parents = [p for p in self._graph[step] if states[p] is not State.SUCCEEDED]
        ends = [self._end(p) for p in parents if states[p] is State.RUNNING]
        known = [end for end in ends if end is not None]
        if not parents or len(known) < len(parents):
            return None
        return max(known) - self.lead

    def _end(self, step: str) -> float | None:
        """Return when a running step is expected to end; None if unknown."""
        seconds = self.expected.get(step)
        began = self._began.get(step)
        if seconds is None or began is None:
            return None
        at, early = began
        return at + (0.0 if early else self.lead) + seconds
