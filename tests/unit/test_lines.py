"""Lines and events, out of pieces of output."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from modalrun.driver import events
from modalrun.driver.events import LinesOf, StepEvent
from modalrun.lines import Line, Separator

DONE = StepEvent("load", "completed", at=1.0)


def separated(*pieces: str) -> list[Line | StepEvent]:
    separator = Separator("stdout")
    items = [item for piece in pieces for item in separator.feed(piece)]
    return [*items, *separator.flush()]


def test_markers_say_whose_lines_follow() -> None:
    text = (
        f"before\n{events.line(LinesOf('load'))}one\n\ntwo\n{events.line(DONE)}"
        f"{events.line(LinesOf(None))}after"
    )
    assert separated(text) == [
        Line(None, "stdout", "before"),
        Line("load", "stdout", "one"),
        Line("load", "stdout", ""),
        Line("load", "stdout", "two"),
        DONE,
        Line(None, "stdout", "after"),
    ]


def test_an_event_after_a_line_that_was_not_ended() -> None:
    assert separated(f"50 %\r99 %{events.line(DONE)}") == [
        Line(None, "stdout", "50 %\r99 %"),
        DONE,
    ]


def test_what_only_looks_like_an_event_is_a_line() -> None:
    text = f'a \x1e b\n\x1e{{"modalrun": "new kind"}}\n{events.MARK}\n'
    assert [item.text for item in separated(text) if isinstance(item, Line)] == text.split("\n")[:3]


PARTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\n\x1e"), max_size=8).map(lambda t: f"{t}\n"),
        st.sampled_from([events.line(DONE), events.line(LinesOf("load"))]),
    )
)


@given(PARTS, st.lists(st.integers(0, 300)))
def test_where_the_pieces_are_cut_makes_no_difference(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert separated(*pieces) == separated(text)
