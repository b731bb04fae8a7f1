"""Decide which step may start when. Pure: events in, actions out, no clock and no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter

OTHER_FAILED = "another step failed"
"""Why a step is not run that ZenML does not let begin."""


class FailureMode(str, Enum):
    """Tell what a failed step means for the others; the values are ZenML's `ExecutionMode`."""

    FAIL_FAST = "fail_fast"
    STOP_ON_FAILURE = "stop_on_failure"
    CONTINUE_ON_FAILURE = "continue_on_failure"


class State(str, Enum):
    """Tell the state of a step. The last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Start:
    """Start this step now."""

    step: str


@dataclass(frozen=True)
class Skip:
    """Do not run this step; `reason` is a sentence for the log."""

    step: str
    reason: str


Action = Start | Skip


class Scheduler:
    """Walk a graph of steps: start each as soon as its parents and `max_parallelism` let it.

    Steps that could start at the same time start in the graph's order.

    Attributes:
        states: The state of each step.
    """

    def __init__(
        self,
        graph: Mapping[str, Collection[str]],
        *,
        mode: FailureMode = FailureMode.CONTINUE_ON_FAILURE,
        max_parallelism: int | None = None,
    ) -> None:
        """Check the graph (each step -> the steps it waits for); `start` starts the first steps.

        Raises:
            ValueError: A step waits for one that doesn't exist, for itself, or in a circle.
        """
        for step, parents in graph.items():
            for parent in parents:
                if parent not in graph:
                    raise ValueError(f"Step '{step}' waits for '{parent}', which doesn't exist.")
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            raise ValueError(f"Steps wait for one another in a circle: {circle}.") from None
        self._graph = graph
        self._mode = mode
        self._limit = max_parallelism or len(graph)
        self._stopping: str | None = None
        self._started = False
        self.states = dict.fromkeys(graph, State.WAITING)

    @property
    def finished(self) -> bool:
        """Whether every step is in a final state."""
        return not any(s in {State.WAITING, State.RUNNING} for s in self.states.values())

    @property
    def succeeded(self) -> bool:
        """Whether every step has succeeded."""
        return all(s is State.SUCCEEDED for s in self.states.values())

    def restore(self, done: Collection[str], running: Collection[str] = ()) -> None:
        """Set which steps have succeeded or run already; call it before `start`."""
        for step in self.states:
            if step in done:
                self.states[step] = State.SUCCEEDED
            elif step in running:
                self.states[step] = State.RUNNING

    def start(self) -> list[Action]:
        """Return the first actions."""
        self._started = True
        return self._advance()

    def ended(self, step: str, *, succeeded: bool) -> list[Action]:
        """Return the actions that follow from the end of a running step.

        Raises:
            ValueError: The step isn't running.
        """
        if self.states.get(step) is not State.RUNNING:
            raise ValueError(f"Step '{step}' is not running.")
        self.states[step] = State.SUCCEEDED if succeeded else State.FAILED
        if not succeeded and self._mode is not FailureMode.CONTINUE_ON_FAILURE:
            self._stopping = self._stopping or f"step `{step}` failed"
        return self._advance()

    def stop(self, reason: str) -> list[Action]:
        """Start nothing any more; running steps may finish."""
        self._stopping = self._stopping or reason
        return self._advance() if self._started else []

    def _advance(self) -> list[Action]:
        actions: list[Action] = []
        running = sum(state is State.RUNNING for state in self.states.values())
        # A parent may follow its child in the mapping: repeat until nothing changes.
        changed = True
        while changed:
            changed = False
            for step, parents in self._graph.items():
                if self.states[step] is not State.WAITING:
                    continue
                reason = self._obstacle(parents)
                if reason is not None:
                    self.states[step] = State.NOT_RUN
                    actions.append(Skip(step, f"Step `{step}` is not run: {reason}."))
                    changed = True
                elif running < self._limit and all(
                    self.states[parent] is State.SUCCEEDED for parent in parents
                ):
                    self.states[step] = State.RUNNING
                    running += 1
                    actions.append(Start(step))
        return actions

    def _obstacle(self, parents: Collection[str]) -> str | None:
        if self._stopping is not None:
            return self._stopping
        blocked = [p for p in parents if self.states[p] in {State.FAILED, State.NOT_RUN}]
        if not blocked:
            return None
        names = ", ".join(f"`{p}`" for p in sorted(blocked))
        return f"{names} did not succeed"
