"""The scheduler, on graphs and orders of events that nobody would think of."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.driver.graph.scheduler import FailureMode, Scheduler, Skip, Start, State

FINAL = {State.SUCCEEDED, State.FAILED, State.NOT_RUN}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """A random graph without circles, its steps in a random order."""
    names = [f"s{i}" for i in range(draw(st.integers(0, 12)))]
    graph = {
        name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []
        for i, name in enumerate(names)
    }
    # Often the other way round: hypothesis seldom draws a permutation far from the first.
    order = draw(st.sampled_from([names, names[::-1]]) | st.permutations(names))
    return {name: graph[name] for name in order}


def some_of(data: st.DataObject, steps: Collection[str]) -> set[str]:
    """None of them, half of the time."""
    if not steps:
        return set()
    return data.draw(st.just(set()) | st.sets(st.sampled_from(sorted(steps))))


@settings(max_examples=300)
@given(
    graph=graphs(),
    mode=st.sampled_from(FailureMode),
    limit=st.none() | st.integers(1, 4),
    data=st.data(),
)
def test_every_schedule_obeys_the_rules_and_ends(graph, mode, limit, data) -> None:
    done = some_of(data, graph)
    # What an earlier driver has started; that may be more than is allowed now.
    running = some_of(data, graph.keys() - done)
    scheduler = Scheduler(graph, mode=mode, max_parallelism=limit)
    scheduler.restore(done, running)
    seen = done | running
    ended_well = set(done)
    failed = stopped = False
    full = limit or len(graph)

    def take(actions) -> None:
        for action in actions:
            assert action.step not in seen, "every step is decided once"
            seen.add(action.step)
            if isinstance(action, Start):
                assert not stopped
                assert set(graph[action.step]) <= ended_well, "no step before its parents"
                assert not (failed and mode is not FailureMode.CONTINUE_ON_FAILURE)
                running.add(action.step)
                assert len(running) <= full
        for step in graph.keys() - seen:
            # Nothing waits that could be decided now.
            assert not stopped
            assert not (failed and mode is not FailureMode.CONTINUE_ON_FAILURE)
            parents = {scheduler.states[parent] for parent in graph[step]}
            assert not parents & {State.FAILED, State.NOT_RUN}
            assert parents - {State.SUCCEEDED} or len(running) >= full
        assert scheduler.finished == (not running)

    take(scheduler.start())
    while running:
        if not stopped and data.draw(st.integers(0, 9)) == 0:
            stopped = True
            take(scheduler.stop("somebody said so"))
            continue
        step = data.draw(st.sampled_from(sorted(running)))
        running.remove(step)
        succeeded = data.draw(st.booleans())
        failed = failed or not succeeded
        if succeeded:
            ended_well.add(step)
        take(scheduler.ended(step, succeeded=succeeded))

    assert scheduler.finished
    assert seen == set(graph)
    assert set(scheduler.states.values()) <= FINAL
    assert scheduler.succeeded == (ended_well == set(graph))
    if not failed and not stopped:
        assert scheduler.succeeded


def test_a_failure_skips_only_its_dependents() -> None:
    scheduler = Scheduler({"a": [], "b": [], "c": ["a"], "d": ["c"], "e": ["b"]})
    assert scheduler.start() == [Start("a"), Start("b")]
    skips = scheduler.ended("a", succeeded=False)
    assert [s.step for s in skips if isinstance(s, Skip)] == ["c", "d"]
    assert "`a`" in skips[0].reason
    assert scheduler.ended("b", succeeded=True) == [Start("e")]


@pytest.mark.parametrize("mode", [FailureMode.FAIL_FAST, FailureMode.STOP_ON_FAILURE])
def test_other_modes_start_nothing_after_a_failure(mode: FailureMode) -> None:
    scheduler = Scheduler({"a": [], "b": [], "c": ["b"]}, mode=mode, max_parallelism=2)
    scheduler.start()
    assert [type(action) for action in scheduler.ended("a", succeeded=False)] == [Skip]
    assert scheduler.ended("b", succeeded=True) == []
    assert scheduler.finished
    assert not scheduler.succeeded


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ({"a": ["b"], "b": ["a"]}, "circle"),
        ({"a": ["a"]}, "circle"),
        ({"a": ["ghost"]}, "ghost"),
    ],
)
def test_impossible_graphs_are_refused(graph: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scheduler(graph)


def test_a_step_that_is_not_running_cannot_end() -> None:
    scheduler = Scheduler({"a": [], "b": ["a"]})
    scheduler.start()
    with pytest.raises(ValueError, match="not running"):
        scheduler.ended("b", succeeded=True)
    scheduler.ended("a", succeeded=True)
    with pytest.raises(ValueError, match="not running"):
        scheduler.ended("a", succeeded=False)


def test_a_skip_is_reported_once() -> None:
    scheduler = Scheduler({"a": [], "b": ["a"]}, mode=FailureMode.FAIL_FAST)
    scheduler.start()
    (skip,) = scheduler.stop("somebody said so")
    assert skip == Skip("b", "Step `b` is not run: somebody said so.")
    assert scheduler.ended("a", succeeded=False) == []
    assert scheduler.stop("somebody else said so") == []


def test_restored_running_steps_count() -> None:
    graph = {"a": (), "b": (), "c": ("a",)}
    scheduler = Scheduler(graph, max_parallelism=1)
    scheduler.restore(done=[], running=["a"])
    assert scheduler.start() == []
    assert scheduler.ended("a", succeeded=True) == [Start("b")]
    assert scheduler.ended("b", succeeded=True) == [Start("c")]
