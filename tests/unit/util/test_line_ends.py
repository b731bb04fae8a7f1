"""Unfinished lines of others."""

import io
import sys

import pytest

from modalrun.util import line_ends


def test_an_unfinished_line_is_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with line_ends.ended():
        print("whole")
        print("half", end="")
        print("", end="")
        print("progress", end="\r", file=sys.stderr)
    print("next")
    assert capsys.readouterr() == ("whole\nhalf\nnext\n", "progress\r")
    assert sys.stdout.write("after") == 5


def test_a_stream_that_was_closed_or_replaced_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed, other = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", closed)
    with line_ends.ended():
        print("half", end="")
        closed.close()
    monkeypatch.setattr(sys, "stdout", other)
    with pytest.raises(KeyError), line_ends.ended():
        print("half", end="")
        other.write = None  # type: ignore[assignment,method-assign]
        raise KeyError
    assert other.getvalue().startswith("half")
