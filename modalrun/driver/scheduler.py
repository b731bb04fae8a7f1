"""Which step may start when. Pure: events in, actions out, no clock and no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum


class FailureMode(str, Enum):
    """What a failed step means for the others; the values are ZenML's `ExecutionMode`."""

    FAIL_FAST = "fail_fast"
    STOP_ON_FAILURE = "stop_on_failure"
    CONTINUE_ON_FAILURE = "continue_on_failure"


class State(str, Enum):
    """Where a step stands. The last three are final."""

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
    """This step will not run; `reason` is a sentence for the log."""

    step: str
    reason: str


Action = Start | Skip


class Scheduler:
    """Walks a graph of steps: starts each as soon as its parents and `max_parallelism` let it.

    Steps that could start at the same time start in the graph's order.

    Attributes:
        states: Where each step stands.
    """

    def __init__(
        self,
        graph: Mapping[str, Collection[str]],
        *,
        mode: FailureMode = FailureMode.CONTINUE_ON_FAILURE,
        max_parallelism: int | None = None,
        done: Collection[str] = (),
        running: Collection[str] = (),
    ) -> None:
        """Set up; nothing starts before `start`.

        Args:
            graph: Each step -> the steps it waits for.
            mode: What a failure means for steps that don't depend on it.
            max_parallelism: How many steps may run at once; None for no bound.
            done: Steps that have succeeded earlier and don't run again.
            running: Steps that were started by somebody else; their end is still to be told.

        Raises:
            ValueError: A step waits for one that is not there, for itself, or in a circle.
        """
        for step, parents in graph.items():
            for parent in parents:
                if parent not in graph:
                    raise ValueError(f"Step '{step}' waits for '{parent}', which doesn't exist.")
        if circle := _circle(graph):
            raise ValueError(f"Steps wait for one another in a circle: {' -> '.join(circle)}.")
        self._graph = graph
        self._mode = mode
        self._limit = max_parallelism or len(graph)
        self._stopping: str | None = None
        self.states = {
            step: State.SUCCEEDED
            if step in done
            else State.RUNNING
            if step in running
            else State.WAITING
            for step in graph
        }

    @property
    def finished(self) -> bool:
        """Whether every step is in a final state."""
        return not any(s in {State.WAITING, State.RUNNING} for s in self.states.values())

    @property
    def succeeded(self) -> bool:
        """Whether every step has succeeded."""
        return all(s is State.SUCCEEDED for s in self.states.values())

    def start(self) -> list[Action]:
        """The first actions."""
        return self._advance()

    def ended(self, step: str, *, succeeded: bool) -> list[Action]:
        """A running step has ended; returns what follows from it.

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
        """Start nothing any more; what runs may end by itself."""
        self._stopping = self._stopping or reason
        return self._advance()

    def _advance(self) -> list[Action]:
        actions: list[Action] = []
        running = sum(state is State.RUNNING for state in self.states.values())
        # Parents may stand after their children in the mapping: go on until nothing changes.
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


def _circle(graph: Mapping[str, Collection[str]]) -> list[str] | None:
    """Steps that wait for one another, the first one again at the end; None if there are none."""
    waiting = {step: set(parents) for step, parents in graph.items()}
    while free := [step for step, parents in waiting.items() if not parents]:
        for step in free:
            del waiting[step]
        for parents in waiting.values():
            parents.difference_update(free)
    if not waiting:
        return None
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(sorted(waiting[path[-1]])[0])
    return path[path.index(path[-1]) :]
