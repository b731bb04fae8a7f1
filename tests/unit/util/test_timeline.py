"""Record phases, and show them with --debug."""

from __future__ import annotations

import threading

import pytest

from modalrun.util import timeline
from modalrun.util.timeline import Phase, phase, shown


@pytest.fixture(autouse=True)
def debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(timeline.DEBUG, "1")


def rows(said: list[str]) -> dict[str, list[str]]:
    """Return begin, end, thread, name and the rest of each line, by its first words."""
    (text,) = said
    return {line.split("  ")[2].strip(): line.split() for line in text.splitlines()[1:]}


def test_lines_are_in_order_of_their_begins_with_bars_to_scale() -> None:
    phases = [
        Phase("import", "MainThread", 10.0, 12.0),
        Phase("create", "MainThread", 13.0, None),
        Phase("connect", "modal", 11.0, 13.0, failed=True),
    ]
    assert timeline.lines(phases, 10.0, 14.0) == [
        "timeline, in seconds from the start of the command (4.000)",
        f"  0.000   2.000  MainThread  import   {'█' * 20}",
        f"  1.000   3.000  modal       connect  {' ' * 10}{'█' * 20} failed",
        f"  3.000   4.000  MainThread  create   {' ' * 30}{'█' * 10} goes on",
    ]


def test_phases_of_all_threads_are_shown_once() -> None:
    said: list[str] = []

    def work() -> None:
        with phase("other"):
            pass

    for _ in range(2):
        with shown(said.append):
            with phase("one"):
                pass
            thread = threading.Thread(target=work, name="helper")
            thread.start()
            thread.join()
    for text in said:
        assert [line.split()[2:4] for line in text.splitlines()[1:]] == [
            ["MainThread", "one"],
            ["helper", "other"],
        ]


def test_a_failure_is_shown_and_raised() -> None:
    said: list[str] = []
    with pytest.raises(ValueError), shown(said.append), phase("one"):
        raise ValueError
    assert said[0].endswith("failed")


def test_a_terminal_that_is_gone_hides_no_error() -> None:
    def say(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(ValueError), shown(say), phase("one"):
        raise ValueError


def test_nothing_is_shown_without_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(timeline.DEBUG)
    said: list[str] = []
    with shown(said.append), phase("one"):
        pass
    assert not said
