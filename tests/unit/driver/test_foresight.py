"""Predict whose turn comes soon."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modalrun.driver.foresight import USUAL_LEAD, Foresight
from modalrun.driver.scheduler import State

W, R, S, F = State.WAITING, State.RUNNING, State.SUCCEEDED, State.FAILED
DIAMOND = {"load": [], "left": ["load"], "right": ["load"], "join": ["left", "right"]}


def foresight(suited: str = "load left right join", most: int = 9, **expected: float) -> Foresight:
    made = Foresight(DIAMOND, suited=suited.split(), most=most)
    made.expected = expected
    made.saw_startup(2.0)
    return made


def states(load: State, left: State = W, right: State = W, join: State = W) -> dict[str, State]:
    return {"load": load, "left": left, "right": right, "join": join}


def test_a_sandbox_is_due_when_the_last_parent_is_about_to_end() -> None:
    seen = foresight(load=10, left=3, right=20)
    # It begins its step at 102 and ends at 112; a sandbox for its children needs 2 s.
    seen.began("load", 100, early=False)
    assert seen.due(states(R), 0, 109.9) == ([], 110)
    assert seen.due(states(R), 0, 110) == (["left", "right"], None)
    assert seen.due(states(R), 0, 110, tried={"left"}) == (["right"], None)
    seen.began("left", 112, early=True)
    seen.began("right", 112, early=False)
    assert seen.due(states(S, R, R), 0, 113) == ([], 132)
    # The first one to end doesn't matter.
    assert seen.due(states(S, S, R), 0, 132) == (["join"], None)


def test_no_sandbox_is_due_for_a_step_that_may_not_run_soon() -> None:
    seen = foresight(load=10, left=3)
    seen.began("load", 100, early=False)
    seen.began("left", 100, early=False)
    # Nobody knows how long "right" takes; it may be waiting for room; it has failed.
    assert seen.due(states(S, R, R), 0, 1e9) == ([], None)
    assert seen.due(states(S, R, W), 0, 1e9) == ([], None)
    assert seen.due(states(S, R, F), 0, 1e9) == ([], None)
    # Steps without parents that run have their turn already.
    assert seen.due(states(W), 0, 1e9) == ([], None)
    assert seen.due(states(S), 0, 1e9) == ([], None)


def test_only_suited_steps_and_a_limited_number_are_due() -> None:
    seen = foresight("right join", load=10)
    seen.began("load", 100, early=False)
    assert seen.due(states(R), 0, 200) == (["right"], None)
    seen = foresight(most=2, load=10)
    seen.began("load", 100, early=False)
    assert seen.due(states(R), 1, 200) == (["left"], None)
    assert seen.due(states(R), 2, 200) == ([], None)


@given(st.lists(st.floats(-10, 100), max_size=9))
def test_the_lead_is_within_the_startup_times_of_this_run(startups: list[float]) -> None:
    seen = Foresight(DIAMOND, suited=(), most=1)
    for seconds in startups:
        seen.saw_startup(seconds)
    if startups:
        assert max(0, min(startups)) <= seen.lead <= max(0, *startups, 0)
    else:
        assert seen.lead == USUAL_LEAD
