"""How lines of a log look."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from modalrun.output import log_text
from modalrun.output.log_text import LineRenderer, as_json, printer, rfc3339
from modalrun.output.terminal.step_labels import StepLabels
from modalrun.run.events import Redraw
from modalrun.run.log_lines import LogLine

EVIL = "\x1b]0;title\x07[bold]a\x1b[2J\x00b\x9b1mc"


def line(text: str, step: str | None = "train", **values: object) -> LogLine:
    defaults = {"source": "stdout", "time": 1.5, "sandbox": "sb-1", "attempt": 2}
    return LogLine(step=step, text=text, **{**defaults, **values})  # type: ignore[arg-type]


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write = printer(jsonl=False, timestamps=False)
    write([line(EVIL), line("own", None), line("\x1b[31mred", "tr\x1bain")])
    assert capsys.readouterr().out == "train | [bold]abc\nown\ntrin | red\n"


def test_timestamps_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    printer(jsonl=False, timestamps=True)([line("a"), line("b", time=None)])
    stamp = "1970-01-01T00:00:01.500Z"
    assert capsys.readouterr().out == f"{stamp} train | a\n{'-':<24} train | b\n"


def test_no_workflow_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    printer(jsonl=False, timestamps=False)([line("::add-mask::x", None), line("##[error]y")])
    out = capsys.readouterr().out
    assert not out.startswith("::") and "##[" not in out


def test_json_keeps_the_text_as_it_was() -> None:
    text = as_json(line(EVIL + "\r\u20ac\ud800"))
    assert text.isprintable() and text.isascii()
    assert json.loads(text) == {
        "version": 1,
        "kind": "line",
        "step": "train",
        "attempt": 2,
        "source": "stdout",
        "time": "1970-01-01T00:00:01.500Z",
        "sandbox": "sb-1",
        "text": EVIL + "\r\u20ac\ud800",
    }
    assert json.loads(as_json(line("x", None, sandbox="", time=None)))["attempt"] is None


def test_times() -> None:
    assert rfc3339(None) is None
    assert rfc3339(0.9999) == "1970-01-01T00:00:00.999Z"


@pytest.mark.parametrize("colours", [True, False])
def test_on_a_terminal_names_line_up_and_stay_apart(
    monkeypatch: pytest.MonkeyPatch, colours: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    names = [f"preprocess_customer_transactions_{where}" for where in ("europe", "america")]

    printer(jsonl=False, timestamps=False)([line("x", name) for name in ("load", *names)])
    printer(jsonl=True, timestamps=False)([line("y", names[0])])

    text = shown.getvalue()
    assert ("\x1b" in text) == colours
    *plain, last = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert plain == [
        "load                     | x",
        "preprocess_…tions_europe | x",
        "preprocess_…ions_america | x",
    ]
    assert json.loads(last)["step"] == names[0]


def test_a_traceback_shows_paths_relative_to_the_source_root(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = '  File "/state/sandboxes/sb-01AB/root/app/code/lib/prep.py", line 3, in clean'
    printer(jsonl=False, timestamps=False)([line(text)])
    assert capsys.readouterr().out == 'train |   File "lib/prep.py", line 3, in clean\n'
    # As it was printed.
    assert json.loads(as_json(line(text)))["text"] == text


def test_a_long_line_is_broken_between_words_below_its_own_text() -> None:
    labels = StepLabels(20)
    labels.learn(["train", "evaluate"])
    renderer = LineRenderer(labels, colours=False, width=lambda: 40)
    text = "one two three four five six seven eight nine /a/path/that/is/longer/than/the/line"
    shown = renderer.render(line(text)).split("\n")
    assert shown == [
        "train    | one two three four five six",
        "           seven eight nine",
        "           /a/path/that/is/longer/than/the/line",
    ]
    assert renderer.render(line("short")) == "train    | short"
    shown = renderer.render(line("Step step_of_a_name_that_is_longer_than_a_line")).split("\n")
    assert shown == ["train    | Step step_of_a_name_that_is_l", "           onger_than_a_line"]
    in_colour = LineRenderer(labels, colours=True, width=lambda: 40)
    shown = in_colour.render(line("\x1b[31mFailed to run step: 'data/labels.csv'\x1b[0m")).split(
        "\n"
    )
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown[1]) == "           'data/labels.csv'"


def test_where_nothing_is_redrawn_a_bar_is_a_line_every_30_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(log_text.time, "monotonic", lambda: now)
    bars, printed = log_text.BarLines(), []
    for tenth in range(1_000):
        now = tenth / 10
        printed += [(now, name) for name in "ab" if bars.due(Redraw(name, f"{now} s"))]
        bars.due(Redraw("short", "" if tenth % 100 == 0 else "x"))
    assert printed == [(moment, name) for moment in (30, 60, 90) for name in "ab"]
