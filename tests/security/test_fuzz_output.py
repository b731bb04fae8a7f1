"""Nothing that modalrun prints controls a terminal or CI, whatever is in what it prints."""

from __future__ import annotations

import io
import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from modalrun.doctor.findings import Report
from modalrun.errors import ModalrunError
from modalrun.output.doctor_text import print_report
from modalrun.output.github import GitHubReporter, markdown
from modalrun.output.local_text import write_output
from modalrun.output.log_text import as_json, printer
from modalrun.output.reporter import Reporter
from modalrun.output.terminal import writer
from modalrun.output.terminal.console import make_console, print_error
from modalrun.output.terminal.sanitize import harmless, without_commands
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import LogLine
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress, StepProgress
from modalrun.util.check import Finding

PIECES = st.sampled_from(
    [
        *("\x1b", "\x1b[", "\x1b]52;c;eA==\x07", "\x1b]8;;https://evil\x1b\\", "\x1bP", "\x1b\\"),
        *("\x9b", "\x9d", "\x9c", "\x07", "\r", "\n", "\r\n", "\0", "\x7f", "\x85", "\x0b", "\x0c"),
        *("\x1b[31m", "\x1b[8m", "\x1b[30;40m", "\x1b[38;5;16m", "\x1b[2J", "\x1b[1A", "8;", "m"),
        *("\u200b", "\u200e", "\u202e", "\u2060", "\u2066", "\u2028", "\ufeff", "\U000e0041"),
        *("\xad", "\ufe0f", "\u3164", "\u061c", "\ud800", "\udfff", "\ue000"),
        *(
            "::error::x",
            "::",
            ":",
            "##[error]",
            "##",
            "#",
            "##vso[task.setvariable]",
            "##teamcity[",
        ),
        *(
            "::add-mask::",
            "::stop-commands::",
            "section_start:1:a",
            "section_",
            "[",
            "%0A::error::",
        ),
        *("[/]", "[link=https://evil]", "[bold]", ":smile:", "|", "`", "<img src=x>", "$x$", "\\"),
        *(" ", "\t", "\xa0", "text", "é", "日本", "😀", "x" * 50),
    ]
)
unhurried = settings(deadline=None, max_examples=60)
NASTY = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)

OURS = re.compile(r"\x1b\[(?:0|[1-4]|3[1-69]|9[1-6]|2[1-49]|38;5;\d+|38;2;[\d;]+|;)*m")
REDRAWS = re.compile(r"\x1b\[(?:\d*[AKGH]|\?25[lh])|\r")
COMMAND = re.compile(r"^\s*::|##\w*\[|section_(?:start|end):\d")
OWN_COMMAND = re.compile(r"::(?:group::.*|endgroup::|error title=[^:,]*::.*)")


SHOWN = ("ARABIC NUMBER", "ARABIC SIGN", "ARABIC FOOTNOTE", "ARABIC END", "ARABIC DISPUTED")
SHOWN += ("ARABIC POUND", "ARABIC PIASTRE", "SYRIAC", "KAITHI", "EGYPTIAN")
"""How the names of signs begin that Unicode counts as format characters, and that are seen."""


def is_forbidden(character: str) -> bool:
    if character in "\n\t":
        return False
    kind = unicodedata.category(character)
    if kind == "Cf":
        return not unicodedata.name(character, "").startswith(SHOWN)
    number = ord(character)
    return (
        kind in {"Cc", "Cs", "Zl", "Zp"}
        or 0xE0000 <= number <= 0xE0FFF
        or 0xFE00 <= number <= 0xFE0F
        or character in "\u034f\u115f\u1160\u3164\uffa0"
    )


def check(text: str, *, terminal: bool = False, commands: bool = False) -> None:
    if terminal:
        text = REDRAWS.sub("", OURS.sub("", text))
    assert {c for c in text if is_forbidden(c)} == set()
    for line in text.split("\n"):
        if not (commands and OWN_COMMAND.fullmatch(line)):
            assert COMMAND.search(line) is None, line


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def printed(action: Callable[[], object], *, terminal: bool = False, columns: int = 80) -> str:
    shown = Stream(terminal)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", str(columns))
        stack.enter_context(redirect_stdout(shown))
        stack.enter_context(redirect_stderr(shown))
        action()
    return shown.getvalue()


@unhurried
@given(line=NASTY, colours=st.booleans())
def test_a_line(line: str, colours: bool) -> None:
    safe = without_commands(harmless(line, colours=colours))
    check(safe, terminal=colours)
    assert "\n" not in safe
    assert without_commands(harmless(safe, colours=colours)) == safe


def test_every_character() -> None:
    """Only the signs that begin escape sequences change what follows them."""
    text = "".join(map(chr, (*range(0xA0), *range(0xA1, sys.maxunicode + 1))))
    for character in "\n\r\x1b\x90\x98\x9b\x9d\x9e\x9f":
        text = text.replace(character, "")
    check(harmless(text, colours=True))


@unhurried
@given(text=NASTY, terminal=st.booleans())
def test_messages(text: str, terminal: bool) -> None:
    check(printed(lambda: (writer.out(text), writer.err(text)), terminal=terminal))


@unhurried
@given(text=NASTY, hint=st.none() | NASTY, terminal=st.booleans())
def test_errors(text: str, hint: str | None, terminal: bool) -> None:
    error = ModalrunError(text, effect=hint, hint=hint)
    check(printed(lambda: print_error(error), terminal=terminal), terminal=terminal)


@unhurried
@given(
    texts=st.lists(NASTY, max_size=6), kind=st.sampled_from(["stdout", "stderr", "system"]),
    terminal=st.booleans(), timestamps=st.booleans(), step=st.none() | NASTY,
)  # fmt: skip
def test_logs(
    texts: list[str], kind: Any, terminal: bool, timestamps: bool, step: str | None
) -> None:
    lines = [LogLine(step, kind, text, None, "sb-1") for text in texts]

    def show() -> None:
        printer(jsonl=False, timestamps=timestamps)(lines)

    # So wide that no line is wrapped.
    text = printed(show, terminal=terminal, columns=10_000)
    check(text, terminal=terminal)
    assert text.count("\n") == len(texts)


@unhurried
@given(texts=st.lists(NASTY, min_size=1, max_size=4), terminal=st.booleans())
def test_a_run(texts: list[str], terminal: bool) -> None:
    def show() -> None:
        with Reporter() as shown:
            follow(shown, texts)

    check(printed(show, terminal=terminal), terminal=terminal)


@unhurried
@given(texts=st.lists(NASTY, min_size=1, max_size=4))
def test_a_job(texts: list[str]) -> None:
    def show() -> None:
        with GitHubReporter() as shown:
            follow(shown, texts)

    check(printed(show), commands=True)


def follow(shown: Reporter, texts: list[str]) -> None:
    """Show a run in which every text is one of these."""
    one, two = texts[0], texts[-1]
    shown.phase(one)
    shown.say(two, "yellow")
    progress = RunProgress(texts)
    shown.begin(progress)
    for text in texts:
        shown.line(LogLine(text, "stdout", two, None, one))
        shown.line(LogLine(None, "stderr", text, None, one))
        shown.event(StepEvent(text, "failed", at=1.0))
    steps = tuple(
        StepProgress(text, "failed", gpu=one, sandbox=two, reason=one)
        for text in dict.fromkeys(texts)
    )
    shown.summary(Outcome(1, two, (("run", one), ("zenml", two)), steps))


@unhurried
@given(texts=st.lists(NASTY, min_size=1, max_size=4))
def test_the_page_of_a_job(texts: list[str]) -> None:
    steps = tuple(StepProgress(text, "failed", gpu=text, reason=text) for text in texts)
    page = markdown(Outcome(1, texts[0], tuple(("zenml", text) for text in texts), steps))
    assert {c for c in page if is_forbidden(c)} == set()
    assert len(page.splitlines()) == 6 + 2 * len(texts), "no text adds a line"
    # An escaped backtick begins no code.
    outside = re.sub(r"\\.|`[^`\n]*`", "", page)
    assert re.search(r"[<\[\]$*_!`]", outside) is None


@unhurried
@given(message=NASTY, hint=st.none() | NASTY, terminal=st.booleans())
def test_a_report(message: str, hint: str | None, terminal: bool) -> None:
    states: list[Literal["ok", "problem"]] = ["ok", "problem"]
    findings = tuple(Finding("zenml", state, message, hint) for state in states)
    report = Report("local", findings, 1.0, 1)
    check(printed(lambda: print_report(report), terminal=terminal), terminal=terminal)


@unhurried
@given(text=NASTY)
def test_json_keeps_its_data(text: str) -> None:
    document = {"a": text, "b": [text]}
    shown = printed(lambda: writer.out_json(json.dumps(document, indent=2)))
    check(shown)
    assert shown.isascii() and json.loads(shown) == document
    line = as_json(LogLine(None, "stdout", text, None, ""))
    check(line)
    assert json.loads(line)["text"] == text


@unhurried
@given(pieces=st.lists(NASTY | PIECES, max_size=8), terminal=st.booleans())
def test_what_others_print(pieces: list[str], terminal: bool) -> None:
    def write() -> None:
        with writer.guarded():
            for text in pieces:
                print(text, end="")

    check(printed(write, terminal=terminal), terminal=terminal)


@unhurried
@given(data=st.lists(st.binary(max_size=6) | NASTY.map(lambda t: t.encode("utf-8", "replace"))))
def test_output_of_a_local_sandbox(data: list[bytes]) -> None:
    for terminal in (False, True):
        check(printed(lambda: write_output(iter(data)), terminal=terminal), terminal=terminal)


@unhurried
@given(text=NASTY)
def test_whatever_rich_is_given(text: str) -> None:
    def show() -> None:
        console: Console = make_console(stderr=False)
        console.print(text)
        console.print(f"{text} a", f"b {text}", style="bold red")

    for terminal in (False, True):
        check(printed(show, terminal=terminal), terminal=terminal)


@pytest.mark.parametrize(
    "unit",
    ["\x1b[31m", "\x1b[", "\x1b]", "\x1b", "\x9b1;", "\x1b]0;", "\x1b[0;0;0", "\u200b", "##",
     "\ud800", "##a", " ", "\x1bPx\n", "section_start", "\r", "x\ufeff"],
)  # fmt: skip
def test_the_time_is_linear(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        began = time.process_time()
        harmless(text, colours=True)
        writer.plain(text)
        return time.process_time() - began

    short, long = (min(seconds(size) for _ in range(2)) for size in (100_000, 400_000))
    assert long < 9 * short + 0.1


@pytest.mark.exhaustive
def test_ten_megabytes_of_escapes() -> None:
    began = time.process_time()
    assert harmless("\x1b[31m\x1b]" * 1_500_000, colours=False) == ""
    assert time.process_time() - began < 60
