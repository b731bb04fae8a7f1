"""What a GitHub Actions job gets: no log line may command its runner."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from modalrun.output.github import Groups, in_repository, markdown
from modalrun.output.terminal.sanitize import without_commands
from modalrun.output.terminal.writer import workflow_command
from modalrun.run.failure import Failure
from modalrun.run.outcome import Outcome
from modalrun.run.progress import StepProgress
from modalrun.run.records import StepRecord
from modalrun.run.timeline import Span, StepTimeline, Timeline
from modalrun.run.usage import StepUsage

START = 1_767_225_600.123457


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def groups(written: list[str]) -> Groups:
    return Groups(lambda text: written.extend(text.splitlines()))


def test_steps_side_by_side_get_a_group_each(groups: Groups, written: list[str]) -> None:
    groups.line(None, "hello")
    groups.line("a", "a1")
    groups.line("b", "b1")
    groups.line("a", "a2")
    groups.line("c", "c1")
    groups.line(None, "talk")
    groups.ended("c")
    assert written == ["hello", "::group::a", "a1", "a2"], "one step is shown as it goes"
    groups.ended("a")
    assert written[4:] == [
        "::endgroup::", "talk", "::group::c", "c1", "::endgroup::", "::group::b", "b1",
    ]  # fmt: skip
    groups.line("b", "b2")
    groups.ended("b")
    groups.line("a", "late")
    assert written[11:] == ["b2", "::endgroup::", "::group::a", "late", "::endgroup::"]


def test_at_the_end_everything_is_shown(groups: Groups, written: list[str]) -> None:
    for step in "abc":
        groups.line(step, f"line of {step}")
    groups.close()
    groups.close()
    assert written == [
        line for s in "abc" for line in (f"::group::{s}", f"line of {s}", "::endgroup::")
    ]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("::error::owned", ": :error::owned"),
        ("  \t::set-output name=x::y", "  \t: :set-output name=x::y"),
        ("a ::error::b", "a ::error::b"),
        ("x ##[group]y ##[error]", "x ## [group]y ## [error]"),
        ("std::vector", "std::vector"),
        (":", ":"),
        ("", ""),
    ],
)
def test_a_line_commands_nothing(line: str, shown: str) -> None:
    assert without_commands(line) == shown


def test_a_message_ends_no_command() -> None:
    assert workflow_command("error", "50 %\n::warning::x", title="a: b, c\r") == (
        "::error title=a%3A b%2C c::50 %25%0A: :warning::x\n"
    )


OUTCOME = Outcome(
    exit_code=1,
    headline="Run failed: train.",
    details=(("run", "id`1"), ("zenml", "https://zenml.example/run")),
    steps=(
        StepProgress("load_it", "completed", START, START + 2),
        StepProgress("train", "failed", attempt=2, gpu="H100", reason="a | b <script>"),
    ),
)


def test_the_page_of_a_job() -> None:
    assert markdown(OUTCOME).splitlines() == [
        "### ❌ Run failed: train.",
        "",
        "| step | state | time | gpu | |",
        "|---|---|--:|---|---|",
        r"| load\_it | completed | 2.0 s |  |  |",
        r"| train | failed \(try 2\) |  | H100 | a \| b &lt;script&gt; |".replace("&gt;", ">"),
        "",
        "- run: `id1`",
        "- zenml: https://zenml.example/run",
        "",
    ]


def test_the_page_of_a_run_of_several_steps_has_drawings_and_what_they_used() -> None:
    used = StepUsage(1.0, 10.0, 15.0, 2.0, 1_700, 900)
    records = [
        StepRecord("load_it", "completed", usage=used),
        StepRecord("train", "failed", 2, upstream=("load_it",)),
    ]
    spans = (Span("run", START, START + 2),)
    timed = tuple(StepTimeline(record, (), spans) for record in records)
    page = markdown(replace(OUTCOME, timeline=Timeline(START, START + 2, True, (), timed)))
    assert "| step | state | time | gpu | cores (mean) | memory (peak) | |" in page
    assert r"| load\_it | completed | 2.0 s |  | 1.5 | 1,700 MiB |  |" in page
    assert page.index("- run: ") < page.index("**Timeline**\n\n```mermaid\n---")
    assert page.index("```mermaid\n---") < page.index("**Graph**\n\n```mermaid\nflowchart LR")


def test_a_page_is_never_larger_than_github_shows() -> None:
    reason = "é" * 600
    steps = [StepProgress(f"step_{n}", "failed", reason=reason) for n in range(5_000)]
    records = [StepRecord(step.name, "failed", upstream=("step_0",)) for step in steps]
    spans = (Span("run", START, START + 2),)
    timed = tuple(StepTimeline(record, (), spans) for record in records)
    large = replace(
        OUTCOME, steps=tuple(steps), timeline=Timeline(START, START + 2, True, (), timed)
    )
    for room in (1_000_000, 50_000, 1_000):
        page = markdown(large, room)
        assert len(page.encode()) <= room
        assert "more steps\n" in page and "- zenml: " in page
    assert "**Graph**\n\nIt is too large to be drawn.\n" in markdown(large)
    assert markdown(large, 50) == ""


@pytest.mark.parametrize("root", [".", "ml/training"])
def test_an_annotation_names_the_line_in_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    top = tmp_path / "repo"
    code = top / root / "lib" / "a, b:c.py"
    code.parent.mkdir(parents=True)
    code.touch()
    (top / root / "out.py").symlink_to(tmp_path / "elsewhere.py")
    (tmp_path / "elsewhere.py").touch()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(top))

    def place(text: str | None) -> dict[str, str]:
        step = StepProgress("train", "failed", failure=Failure("boom", "ValueError", text))
        return in_repository(top / root, step)

    path = "lib/a, b:c.py" if root == "." else f"{root}/lib/a, b:c.py"
    assert place("lib/a, b:c.py:12") == {"file": path, "line": "12"}
    for other in (None, "lib/gone.py:12", "../../../elsewhere.py:1", "out.py:1"):
        assert place(other) == {}
    command = workflow_command("error", "m", title="t", **place("lib/a, b:c.py:12"))
    shown = path.replace(",", "%2C").replace(":", "%3A")
    assert command == f"::error title=t,file={shown},line=12::m\n"
    monkeypatch.delenv("GITHUB_WORKSPACE")
    assert place("lib/a, b:c.py:12") == {}


def test_a_job_from_its_first_line_to_its_summary(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    code = """
from modalrun.run.progress import RunProgress
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import LogLine
from modalrun.run.failure import Failure
from modalrun.run.outcome import Outcome
from modalrun.run.progress import StepProgress
from modalrun.run.records import StepRecord
from modalrun.run.timeline import Span, StepTimeline, Timeline
from modalrun.run.usage import StepUsage
from modalrun.output import make_reporter
with make_reporter() as shown:
    shown.say("Run x\\n ::error::talk")
    shown.begin(RunProgress(["load", "train"]))
    shown.line(LogLine("load", "stdout", "::error::owned \\x1b[31mred", None, 'sb-1'))
    shown.line(LogLine("load", "stderr", "##[error]owned", None, 'sb-1'))
    shown.event(StepEvent("load", "failed", at=1.0))
    step = StepProgress("load", "failed", reason="ValueError: 50 % ##[x\\n::x")
    shown.summary(Outcome(1, "Run failed: load.", (), (step,), "an-id"))
"""
    environment = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "::group::load",
        ": :error::owned red",
        "## [error]owned",
        "::endgroup::",
        "::error title=Step load failed::ValueError: 50 %25 ## [x"
        "%0Amodalrun logs an-id --step load",
    ]
    assert done.stderr.startswith("Run x\n : :error::talk\n")
    assert "  load: ValueError: 50 % ## [x\n" in done.stderr
    assert not any(line.lstrip().startswith("::") for line in done.stderr.splitlines())
    assert page.read_text().startswith("### ❌ Run failed: load.")
