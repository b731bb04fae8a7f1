"""The output of `submit`, in a real process with real streams."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from commands import after_its_reader_left
from rich.console import Console

from modalrun.output.format import duration
from modalrun.output.reporter import Reporter
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.log_lines import LogLine
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress, StepProgress

START = datetime(2026, 1, 1, 0, 0, 0, 123_457, tzinfo=timezone.utc)
BEGAN = START.timestamp()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (12.3, "12 s"),
        (60, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3600, "1 h 00 m"),
        (7620, "2 h 07 m"),
        (90_000, "25 h 00 m"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(START, START + timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("seconds", "text"), [(9.97, "10 s"), (59.7, "1 m 00 s")])
def test_duration_at_the_edge_of_a_unit(seconds: float, text: str) -> None:
    assert duration(START, START + timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (3, "3 s"), (3.4, "3 s"), (75, "1 m 15 s")]
)
def test_duration_of_what_is_known_to_the_second(seconds: float, text: str) -> None:
    whole = START.replace(microsecond=0)
    assert duration(whole, whole + timedelta(seconds=seconds)) == text
    assert duration(whole - timedelta(seconds=seconds), whole) == text


def test_duration_of_what_has_not_ended() -> None:
    assert duration(None, None) == ""
    assert duration(START, None) == ""


PREAMBLE = """
from modalrun.run.log_lines import LogLine
from modalrun.output.reporter import Reporter
reporter = Reporter()
def out(text, step=None): reporter.line(LogLine(step, 'stdout', text, None, 'sb-1'))
def err(text, step=None): reporter.line(LogLine(step, 'stderr', text, None, 'sb-1'))
"""


def script(body: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = f"{PREAMBLE}\n{body}\n"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1", **environment},
    )


def test_output_goes_to_its_stream_and_talk_to_stderr() -> None:
    done = script(
        "reporter.say('[bold]talk[/bold] :smile:')\n"
        "out('out [red]1[/red]', 'load')\n"
        "err('\\x1b[31merr\\x1b[0m \\x1b[2J1', 'train')\n"
        "out('of no step')\n"
    )
    assert done.returncode == 0
    assert done.stdout == b"load | out [red]1[/red]\nof no step\n"
    assert done.stderr == b"[bold]talk[/bold] :smile:\ntrain | err 1\n"


@pytest.mark.parametrize("github", ["true", ""])
def test_without_a_terminal_a_progress_bar_is_a_line_now_and_then(github: str) -> None:
    done = script(
        """
import os
from modalrun.output import log_text
from modalrun.output.github import GitHubReporter
from modalrun.run.events import Redraw
reporter = GitHubReporter() if os.environ["GITHUB_ACTIONS"] else Reporter()
reporter.event(Redraw('train', '1 %'))
log_text.BAR_SECONDS = 0
reporter.event(Redraw('other', 'epoch 3/10  31 %'))
reporter.event(Redraw('other', ''))
reporter.close()
""",
        GITHUB_ACTIONS=github,
    )
    grouped = b"::group::other\nepoch 3/10  31 %\n::endgroup::\n"
    shown = (grouped, b"") if github else (b"", b"other | epoch 3/10  31 %\n")
    assert (done.stdout, done.stderr) == shown


def test_long_lines_are_not_wrapped() -> None:
    done = script("out('x y ' * 500)\nreporter.say('a b ' * 500)")
    assert done.stdout.count(b"\n") == 1
    assert done.stderr.count(b"\n") == 1


def test_stdout_that_can_not_encode_everything() -> None:
    done = script("out('naïve 😀')", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr.decode()
    assert b"na" in done.stdout


def test_a_reader_that_has_left_is_an_error_on_its_stream_only() -> None:
    code = (
        f"{PREAMBLE}\n"
        "import os, sys\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    for _ in range(10): out('x' * 100_000)\n"
        "except BrokenPipeError: err('still here')\n"
        "os._exit(0)\n"
    )
    done = after_its_reader_left(code)
    assert done.exit_code == 0
    assert done.stderr == "still here\n"


OUTCOME = Outcome(
    exit_code=1,
    headline="Run failed: [b]train[/b].",
    details=(("run", "some-id"), ("logs", "modalrun local logs sb-1")),
    steps=(
        StepProgress("load", "completed", BEGAN, BEGAN + 2),
        StepProgress("[red]train[/red]", "failed", BEGAN, BEGAN + 75),
        StepProgress("evaluate", "not run"),
    ),
    run_id="an-id",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(width: int = 80) -> tuple[Reporter, io.StringIO]:
    shown = Terminal()
    console = Console(
        file=shown, force_terminal=True, color_system="standard", markup=False, highlight=False,
        width=width, soft_wrap=True, legacy_windows=False, no_color=False,
    )  # fmt: skip
    return Reporter(console, console), shown


def test_summary_as_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.line(LogLine("load", "stdout", "a line", None, "sb-1"))
    reporter.summary(OUTCOME)
    captured = capsys.readouterr()
    assert captured.out == "load | a line\n"
    lines = [line.split() for line in captured.err.splitlines() if line]
    assert lines == [
        ["step", "state", "time"],
        ["load", "completed", "2.0", "s"],
        ["[red]train[/red]", "failed", "1", "m", "15", "s"],
        ["evaluate", "not", "run"],
        ["Run", "failed:", "[b]train[/b]."],
        ["[red]train[/red]:", "its", "output", "says", "why"],
        ["modalrun", "logs", "an-id", "--step", "'[red]train[/red]'"],
        ["run", "some-id"],
        ["logs", "modalrun", "local", "logs", "sb-1"],
    ]
    assert "\x1b" not in captured.err
    assert [line for line in captured.err.splitlines() if line != line.rstrip()] == []


def test_summary_in_a_pipe_keeps_long_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "step_" * 30
    Reporter().summary(replace(OUTCOME, steps=(StepProgress(name, "completed"),)))
    assert f"{name}  completed\n" in capsys.readouterr().err


def test_summary_on_a_terminal() -> None:
    reporter, shown = on_a_terminal()
    reporter.summary(OUTCOME)
    text = shown.getvalue()
    assert "\x1b[1;31mRun failed: [b]train[/b]." in text
    assert "[red]train[/red]" in text


def test_talk_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    reporter, shown = on_a_terminal(width=40)
    reporter.say("  sandbox  sb-ZHEARH06R8S20GFQ2F0QP3FXGM (app one, target local)")
    command = "modalrun status 95e54789-2cf3-4454-b6a5-ba596d19ba10"
    cost = "nothing here; on Modal about $0.0039 (list prices)"
    steps = (StepProgress("name" * 10, "failed", BEGAN, BEGAN + 75),)
    details = (("status", command), ("cost", cost))
    reporter.summary(replace(OUTCOME, steps=steps, details=details))

    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "  sandbox  sb-ZHEARH06R8S20GFQ2F0QP3FXGM"
    assert lines[1] == "           (app one, target local)"
    assert f"  status  {command}" in lines, "a command is whole where it is copied"
    assert lines[-2:] == [
        "  cost    nothing here; on Modal about",
        "          $0.0039 (list prices)",
    ]
    assert any(re.fullmatch(r"\w+…\w+  failed  1 m 15 s", line) for line in lines), lines


def test_long_names_are_cut_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"preprocess_{'customer_' * 8}transactions_{n}_of_europe" for n in (1, 2)]
    steps = tuple(StepProgress(name, "completed", BEGAN, BEGAN) for name in names)
    Reporter().summary(replace(OUTCOME, steps=steps))
    said = capsys.readouterr().err
    assert all(re.search(rf"^{name}  completed  0.0 s$", said, re.M) for name in names)

    reporter, shown = on_a_terminal()
    reporter.begin(RunProgress(["load", *names]))
    for name in ("load", *names):
        reporter.line(LogLine(name, "stdout", "x", None, "sb-1"))
    reporter.summary(replace(OUTCOME, steps=steps))
    lines = [re.sub(r"\x1b\[[0-9;?]*\w", "", line) for line in shown.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    marks = [line.removesuffix(" | x") for line in lines if line.endswith(" | x")]
    assert [len(mark) for mark in marks] == [24] * 3 and len(set(marks)) == 3
    rows = [line for line in lines if "  completed" in line]
    assert len(set(rows)) == 2 and all(len(row) == 80 for row in rows)


def test_output_on_a_terminal_keeps_colours_only() -> None:
    reporter, shown = on_a_terminal()
    text = "\x1b[31mred\x1b[0m [green]x[/green] \x1b[2J\x1b]0;t\x07end"
    reporter.line(LogLine(None, "stdout", text, None, "sb-1"))
    assert shown.getvalue() == "\x1b[31mred\x1b[0m [green]x[/green] end\x1b[0m\n"


def test_phase_is_shown_on_a_terminal_until_something_else_is() -> None:
    reporter, shown = on_a_terminal()
    with reporter:
        reporter.phase("Compiling [b]x[/b]")
        assert reporter._spinner.status is not None
        assert str(reporter._spinner.status.status) == "Compiling [b]x[/b] ..."
        reporter.line(LogLine(None, "stdout", "first line", None, "sb-1"))
        assert reporter._spinner.status is None
        assert shown.getvalue().endswith("first line\n")
        reporter.phase("Waiting")
    assert reporter._spinner.status is None
    assert shown.getvalue().rpartition("\x1b[?25")[2].startswith("h"), "the cursor is there again"


def test_the_time_of_a_wait_runs_on_a_terminal() -> None:
    reporter, _ = on_a_terminal()
    drawn = Console(file=io.StringIO(), width=100)
    with reporter:
        for wait in (CapacityWait("H100", "A100", time.time() - 75), None):
            reporter.waiting(wait)
            assert reporter._spinner.status is not None
            drawn.print(reporter._spinner.status.status)
    assert isinstance(drawn.file, io.StringIO)
    waiting, creating = drawn.file.getvalue().splitlines()
    assert waiting == "Waiting for H100 (1 m 15 s), next: A100 ..."
    assert creating == "Creating the sandbox ..."


def test_a_wait_is_one_line_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as reporter:
        reporter.waiting(CapacityWait("H100", None, 0.0))
        reporter.waiting(None)
    assert capsys.readouterr().err == "  Waiting for H100\n"


def test_phase_is_not_shown_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as reporter:
        reporter.phase("Compiling")
    assert capsys.readouterr() == ("", "")


def test_colour_of_one_line_does_not_reach_the_next() -> None:
    reporter, shown = on_a_terminal()
    for text in ("\x1b[31mred", "plain"):
        reporter.line(LogLine(None, "stdout", text, None, "sb-1"))
    assert shown.getvalue() == "\x1b[31mred\x1b[0m\nplain\n"


def test_on_a_terminal_a_step_has_its_colour() -> None:
    reporter, shown = on_a_terminal()
    with reporter:
        reporter.begin(RunProgress(["load", "evaluate"]))
        reporter.line(LogLine("evaluate", "stdout", "[b]x[/b]", None, "sb-1"))
        reporter.line(LogLine("load", "stderr", "y", None, "sb-1"))
        reporter.say("talk")
    text = shown.getvalue()
    assert "\x1b[35mevaluate | \x1b[0m[b]x[/b]" in text
    assert "\x1b[36mload     | \x1b[0my" in text
    assert text.index("talk") > text.index("load     |")


@pytest.mark.parametrize("piped", [False, True])
def test_no_table_where_another_program_may_write_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, piped: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    reading, writing = os.pipe()
    terminal, end = pty.openpty()
    file = writing if piped else os.open(tmp_path / "lines", os.O_CREAT | os.O_WRONLY)
    with os.fdopen(file, "w") as stdout, os.fdopen(end, "w") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with Reporter() as shown:
            shown.begin(RunProgress(["load"]))
            assert (shown._live is None) == piped
        monkeypatch.undo()
    for descriptor in (reading, terminal, *(() if piped else (writing,))):
        os.close(descriptor)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_file_is_no_terminal_although_colours_are_forced(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    terminal, end = pty.openpty()
    with (tmp_path / "out.log").open("w+") as stdout, os.fdopen(end, "w") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with Reporter() as shown:
            shown.begin(RunProgress(["load" * 20]))
            shown.line(LogLine("load" * 20, "stdout", "word " * 40 + "end", None, "sb-1"))
        monkeypatch.undo()
        stdout.seek(0)
        assert stdout.read() == f"{'load' * 20} | {'word ' * 40}end\n"
    os.close(terminal)
