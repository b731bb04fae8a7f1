"""Show a run in a GitHub Actions job: a group for each step, annotations, a summary page."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from modalrun.errors import ModalrunError
from modalrun.output import mermaid
from modalrun.output.format import duration, with_attempt
from modalrun.output.reasons import first_line, logs_command
from modalrun.output.reporter import Reporter
from modalrun.output.terminal.sanitize import harmless, without_commands
from modalrun.output.terminal.writer import err, workflow_command, write_rendered
from modalrun.run.events import FINAL, Redraw, StepEvent
from modalrun.run.failure import relative
from modalrun.run.log_lines import LogLine
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress, StepProgress

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable that names the file whose Markdown the page of a job shows."""

_URL = re.compile(r"https://[\w.~:/?#@&*+,;=%-]+", re.ASCII)
"""What Markdown shows as a link and as nothing else."""

_LARGEST_PAGE = 1_000_000
"""Bytes. GitHub shows nothing of a page above 1 MiB (docs.github.com, workflow commands,
2026-11-28)."""

_IN_MEMORY = 256 * 1024
"""Characters of a waiting step's output that are kept in memory; the rest is in a file."""


class Groups:
    """Show the lines of each step as one group, even though steps run side by side.

    One step is shown while it runs; the lines of the others wait until its group is closed.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        """
        Args:
            write: Takes whole lines, with their line feed.
        """
        self._write = write
        self._shown: str | None = None
        self._waiting: dict[str | None, IO[str]] = {}
        self._ended: set[str] = set()

    def line(self, step: str | None, text: str) -> None:
        """Show a line of a step, or of none."""
        late = False
        if self._shown is None and step is not None:
            self._open(step)
            # The end of a step can overtake its last lines.
            late = step in self._ended
        write = self._write if step == self._shown else self._spool(step).write
        write(f"{text}\n")
        if late:
            self._close()

    def ended(self, step: str) -> None:
        """Close the group of a step, of which no more lines are expected."""
        self._ended.add(step)
        if step == self._shown:
            self._close()
            self._show_waiting()

    def close(self) -> None:
        """Show all lines that wait."""
        if self._shown is not None:
            self._close()
        self._ended.update(step for step in self._waiting if step is not None)
        self._show_waiting()

    def _show_waiting(self) -> None:
        """Show the lines of no step, then steps that have ended, then one that runs."""
        self._show_spool(None)
        waiting = [step for step in self._waiting if step is not None]
        for step in sorted(waiting, key=lambda step: step not in self._ended):
            self._open(step)
            if step not in self._ended:
                return
            self._close()

    def _open(self, step: str) -> None:
        self._write(workflow_command("group", step))
        self._shown = step
        self._show_spool(step)

    def _close(self) -> None:
        self._write(workflow_command("endgroup", ""))
        self._shown = None

    def _spool(self, step: str | None) -> IO[str]:
        if step not in self._waiting:
            self._waiting[step] = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (closed when shown)
                _IN_MEMORY, "w+", encoding="utf-8", errors="replace", newline="\n"
            )
        return self._waiting[step]

    def _show_spool(self, step: str | None) -> None:
        spool = self._waiting.pop(step, None)
        if spool is not None:
            with spool:
                spool.seek(0)
                for line in spool:
                    self._write(line)


class GitHubReporter(Reporter):
    """Show a run in a job's log. Both streams go to stdout: a group is one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._groups = Groups(self._write)

    def close(self) -> None:
        """Show all lines that wait."""
        with self._lock:
            self._groups.close()
        super().close()

    def begin(self, progress: RunProgress) -> None:
        """Begin the run's output, without a live view."""

    def event(self, event: StepEvent | Redraw) -> None:
        """Close the group of a step that has ended, or print a progress bar in it."""
        super().event(event)
        with self._lock:
            if isinstance(event, StepEvent) and event.state in FINAL:
                self._groups.ended(event.step)

    def line(self, line: LogLine) -> None:
        """Print a line of the run's output in the group of its step."""
        text = without_commands(harmless(relative(line.text), colours=False))
        with self._lock:
            self._groups.line(line.step, text)

    def question(self, text: str | None) -> None:
        """Ask nothing: a job has no keyboard."""

    def summary(self, outcome: Outcome) -> None:
        """Annotate the job with errors, and print the steps to the log and the job's page."""
        self.close()
        for step in outcome.failed:
            last = step.failure.lines if step.failure else ()
            command = logs_command(step.name, outcome.run_id)
            reason = first_line(step.reason or "Its output says why.")
            hint = [f"next: {step.next}"] if step.next else []
            message = "\n".join((reason, *last, *hint, command))
            title, place = f"Step {step.name} failed", in_repository(outcome.source_root, step)
            self._write(workflow_command("error", message, title=title, **place))
        if outcome.exit_code and not outcome.failed:
            self._write(workflow_command("error", outcome.headline, title="modalrun"))
        super().summary(outcome)
        _add_to_page(lambda room: markdown(outcome, room))

    def _write(self, text: str) -> None:
        write_rendered(sys.stdout, text)


def annotate(error: ModalrunError) -> None:
    """Show the error that a command ends with as an annotation of a job, and on the job's page."""
    text = "\n".join(filter(None, (error.message, error.hint)))
    # Not to stdout, which a script may read for the run's id.
    write_rendered(sys.stderr, workflow_command("error", text, title="modalrun"))
    first, *rest = map(_escaped, text.splitlines())
    page = "\n\n".join((f"### ❌ {first}", *rest, ""))
    _add_to_page(lambda room: page if _size([page]) <= room else "")


def _add_to_page(render: Callable[[int], str]) -> None:
    """Add a text to the page of a job, if there is one.

    Args:
        render: Returns the text; it gets the bytes that are left on the page.
    """
    path = os.environ.get(STEP_SUMMARY)
    if path:
        try:
            with Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(render(_LARGEST_PAGE - file.tell()))
        except OSError as error:
            err(f"note: {STEP_SUMMARY} can't be written: {error}")


def in_repository(root: Path | None, step: StepProgress) -> dict[str, str]:
    """Return the file and the line of a step's failure, as GitHub shows them beside the code.

    Args:
        root: The source root, to which the recorded place is relative.
    """
    file, _, line = ((step.failure and step.failure.place) or "").rpartition(":")
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if root is None or not file or not workspace:
        return {}
    top, path = Path(workspace).resolve(), (root / file).resolve()
    # Unlike `Path.is_file`, it takes any text.
    if not path.is_relative_to(top) or not os.path.isfile(path):  # noqa: PTH113
        return {}
    return {"file": path.relative_to(top).as_posix(), "line": line}


def markdown(outcome: Outcome, room: int = _LARGEST_PAGE) -> str:
    """Render the end of a run for the page of a job.

    Args:
        room: Bytes that the page may have at most; GitHub shows none of a larger one.
    """
    sign = "✅" if outcome.exit_code == 0 else "❌"
    head = [f"### {sign} {_escaped(outcome.headline)}", ""]
    end = []
    for label, detail in outcome.details:
        value = harmless(detail, colours=False)
        shown = value if _URL.fullmatch(value) else f"`{value.replace('`', '')}`"
        end.append(f"- {label}: {shown}")
    left = room - _size([*head, *end])
    if left < 0:
        return ""
    table = _table(outcome, left // 2)
    left -= _size(table)
    for title, drawn in _diagrams(outcome):
        more = ["", f"**{title}**", "", drawn or "It is too large to be drawn."]
        if left > _size(more):
            end += more
            left -= _size(more)
    return "\n".join([*head, *table, *end]) + "\n\n"


def _size(lines: Sequence[str]) -> int:
    return sum(len(line.encode(errors="backslashreplace")) + 1 for line in lines) + 1


def _table(outcome: Outcome, room: int) -> list[str]:
    """Render the steps, with what they have used, as a table of at most `room` bytes."""
    timed = outcome.timeline.steps if outcome.timeline is not None else ()
    used = {one.step.name: one.step.usage for one in timed if one.step.usage is not None}
    more = (" cores (mean) | memory (peak) |", "--:|--:|") if used else ("", "")
    lines = [f"| step | state | time | gpu |{more[0]} |", f"|---|---|--:|---|{more[1]}---|"]
    room -= _size(lines)
    for number, step in enumerate(outcome.steps):
        usage = used.get(step.name)
        figures = (f"{usage.mean_cores:.1f}", f"{usage.peak_memory:,} MiB") if usage else ("", "")
        cells = (
            step.name,
            with_attempt(step.state, step.attempt),
            duration(step.started, step.ended),
            step.gpu or "",
            *(figures if used else ()),
            first_line("; next: ".join(filter(None, (step.reason, step.next)))),
        )
        row = f"| {' | '.join(map(_escaped, cells))} |"
        room -= _size([row])
        if room < 0:
            return [*lines, "", f"and {len(outcome.steps) - number} more steps", ""]
        lines.append(row)
    return [*lines, ""] if outcome.steps else []


def _diagrams(outcome: Outcome) -> Iterator[tuple[str, str | None]]:
    """Yield the drawings of a run of several steps with their titles; None for a too large one."""
    if outcome.timeline is not None and len(outcome.steps) > 1:
        steps = [one.step for one in outcome.timeline.steps]
        if any(one.spans for one in outcome.timeline.steps):
            yield "Timeline", mermaid.gantt(outcome.timeline)
        if any(step.upstream for step in steps):
            yield "Graph", mermaid.flowchart(steps)


def _escaped(text: str) -> str:
    """Escape a text for Markdown, also for a cell of a table."""
    text = harmless(text, colours=False).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", text)
