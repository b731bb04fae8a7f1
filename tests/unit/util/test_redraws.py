"""Lines that are redrawn."""

import contextlib
import io
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.util import line_ends, redraws

NESTED = "\n\r inner 0%\x1b[A\n\r inner 50%\x1b[A\n\r inner 99%\x1b[A\r outer 50%\n"
"""As tqdm writes the bar of an inner loop, and goes back to the outer one's."""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("", "")),
        ("a\nb", ("a\n", "b")),
        ("a\r\nb", ("a\r\n", "b")),
        ("1%\r2%\r", ("", "\r2%\r")),
        ("\r1%\r2%", ("", "\r2%")),
        ("x\n\r1%\r\r\r", ("x\n", "\r1%\r")),
        ("\r" * 1_000_000, ("", "\r")),
        ("\n\r1%\x1b[A", ("\n", "\r1%\x1b[A")),
        ("\n\r1%\x1b[A\n\r2%\x1b[A", ("\n", "\r2%\x1b[A")),
        ("\n\n\r1%\x1b[A\x1b[A\n\n\r2%", ("\n\n", "\r2%")),
    ],
)
def test_what_counts_of_an_unfinished_line(text: str, parts: tuple[str, str]) -> None:
    assert redraws.split(text) == parts
    assert redraws.split_bytes(text.encode()) == tuple(part.encode() for part in parts)


def test_a_nested_bar_is_one_line() -> None:
    whole, rest = redraws.split(NESTED)
    assert [redraws.state(line) for line in whole.split("\n")] == ["", " outer 50%", ""]
    assert rest == ""


@given(st.lists(st.text(st.sampled_from("ab\n\r%"), max_size=8)))
def test_in_any_pieces_the_last_states_are_the_same(pieces: list[str]) -> None:
    rest, shown = "", ""
    for piece in pieces:
        whole, rest = redraws.split(rest + piece)
        shown += whole
    told = [redraws.state(line) for line in (shown + rest).split("\n")]
    assert told == [redraws.state(line) for line in "".join(pieces).split("\n")]


class Storing(io.StringIO):
    """A stream whose `write` was replaced by one that stores each text, as by ZenML."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[str] = []
        self.write = self._store  # type: ignore[method-assign]

    def _store(self, text: str) -> int:
        self.stored.append(text)
        return io.StringIO.write(self, text)


@contextlib.contextmanager
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storing]:
    stream = Storing()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with line_ends.redrawn_once():
        yield stream


def test_of_a_bar_the_last_state_is_stored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with stored(monkeypatch) as stream:
        stream.write("before\n")
        for percent in range(100):
            stream.write(f"\r{percent:3}%")
        stream.write("\n")
        stream.write("a\rb\r\n")
        for percent in range(100):
            stream.write(f"{percent}%\r")
        stream.write("after\nand ")
        stream.write("more\n")
        stream.write("\r  0%")
        stream.write("\r 31%")
    assert stream.stored == [
        "before\n", " 99%\n", "a\rb\r\n", "after\nand ", "more\n", " 31%"
    ]  # fmt: skip
    lines = stream.getvalue().split("\n")
    assert [redraws.state(line) for line in lines] == [
        "before", " 99%", "b", "after", "and more", " 31%"
    ]  # fmt: skip
    assert lines[1].count("%") == 101, "the stream itself gets all of them"
    assert stream.write == stream._store


def test_nested_bars_are_stored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with stored(monkeypatch) as stream:
        stream.write("\r outer 0%")
        for _ in range(2):
            for text in NESTED.removesuffix("\n").replace("\x1b[A", "|\x1b[A|").split("|"):
                stream.write(text)
        stream.write("\n")
    assert stream.stored == [" outer 0%\n", " outer 50%\n", " outer 50%\n"]
