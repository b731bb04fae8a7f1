"""What `submit` shows in a GitHub Actions job: a group per step, annotations, a summary page."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from modalrun.output.console import Reporter, state
from modalrun.output.format import duration
from modalrun.output.sanitize import harmless, without_commands
from modalrun.run.events import FINAL, StepEvent
from modalrun.run.log_lines import LogLine
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress, StepProgress

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable that names the file whose Markdown the job's page shows."""

_IN_MEMORY = 256 * 1024
"""Characters of a waiting step's output that are kept in memory; what is more goes to a file."""


class Groups:
    """Shows each step's lines as one group, though steps run side by side.

    One step is shown as it goes; the lines of the others wait until its group is closed.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        """Nothing is written yet.

        Args:
            write: Takes whole lines, with their line feed.
        """
        self._write = write
        self._shown: str | None = None
        self._waiting: dict[str | None, IO[str]] = {}
        self._ended: set[str] = set()

    def line(self, step: str | None, text: str) -> None:
        """A line of a step, or of none."""
        if self._shown is None and step is None:
            self._write(f"{text}\n")
            return
        if self._shown is None and step is not None:
            self._open(step)
            if step in self._ended:
                # The end of a step can overtake its last lines.
                self._write(f"{text}\n")
                self._close()
                return
        if step == self._shown:
            self._write(f"{text}\n")
        else:
            self._spool(step).write(f"{text}\n")

    def ended(self, step: str) -> None:
        """No more is expected of a step."""
        self._ended.add(step)
        if step == self._shown:
            self._close()
            self._go_on()

    def close(self) -> None:
        """Show all that waits."""
        if self._shown is not None:
            self._close()
        self._ended.update(step for step in self._waiting if step is not None)
        self._go_on()

    def _go_on(self) -> None:
        """Show what waits: lines of no step, steps that have ended, then one that runs."""
        self._show_spool(None)
        waiting = [step for step in self._waiting if step is not None]
        for step in waiting:
            if step in self._ended:
                self._open(step)
                self._close()
        for step in waiting:
            if step not in self._ended:
                self._open(step)
                return

    def _open(self, step: str) -> None:
        self._write(f"::group::{step}\n")
        self._shown = step
        self._show_spool(step)

    def _close(self) -> None:
        self._write("::endgroup::\n")
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
    """Shows a run in a job's log. Both streams go to stdout: a group is one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._groups = Groups(self._write)

    def say(self, text: str, style: str | None = None) -> None:
        """A line of talk."""
        super().say("\n".join(map(without_commands, text.split("\n"))), style)

    def begin(self, board: RunProgress) -> None:
        """The run's output follows."""

    def event(self, event: StepEvent) -> None:
        """A step's state has changed."""
        with self._lock:
            if event.state in FINAL:
                self._groups.ended(event.step)

    def line(self, line: LogLine) -> None:
        """A line of the run's output, in the group of its step."""
        text = without_commands(harmless(line.text, colours=False))
        with self._lock:
            self._groups.line(line.step, text)

    def question(self, text: str | None) -> None:
        """Nobody is there to be asked."""

    def summary(self, outcome: Outcome) -> None:
        """Annotations for what failed, and the steps in the log and on the job's page."""
        outcome = replace(outcome, steps=tuple(map(_without_commands, outcome.steps)))
        with self._lock:
            self._groups.close()
            failed = [step for step in outcome.steps if step.state == "failed"]
            for step in failed:
                message = step.reason or "Its log says why."
                self._write(command("error", message, title=f"Step {step.name} failed"))
            if outcome.exit_code and not failed:
                self._write(command("error", outcome.headline, title="modalrun"))
        super().summary(outcome)
        path = os.environ.get(STEP_SUMMARY)
        if path:
            try:
                with Path(path).open("a", encoding="utf-8") as file:
                    file.write(markdown(outcome))
            except OSError as error:
                self.say(f"note: {STEP_SUMMARY} can't be written: {error}", "yellow")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _end(self) -> None:
        with self._lock:
            self._groups.close()
        super()._end()


def _without_commands(step: StepProgress) -> StepProgress:
    """A step whose reason is one line that commands nothing."""
    if not step.reason:
        return step
    line = harmless(step.reason.strip().partition("\n")[0], colours=False)
    return replace(step, reason=without_commands(line))


def command(name: str, message: str, *, title: str) -> str:
    """A workflow command as a line, with everything escaped that could end it or start another."""
    escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    label = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    label = label.replace(":", "%3A").replace(",", "%2C")
    return f"::{name} title={label}::{escaped}\n"


def markdown(outcome: Outcome) -> str:
    """A run's end for the page of a job."""
    sign = "✅" if outcome.exit_code == 0 else "❌"
    lines = [f"### {sign} {_escaped(outcome.headline)}", ""]
    if outcome.steps:
        lines += ["| step | state | time | gpu | |", "|---|---|--:|---|---|"]
        for step in outcome.steps:
            cells = (
                step.name,
                state(step),
                duration(step.started, step.ended),
                step.gpu or "",
                step.reason or "",
            )
            lines.append(f"| {' | '.join(map(_escaped, cells))} |")
        lines.append("")
    for label, value in outcome.details:
        shown = value if value.startswith("https://") else f"`{value.replace('`', '')}`"
        lines.append(f"- {label}: {shown}")
    return "\n".join(lines) + "\n\n"


def _escaped(text: str) -> str:
    """Text as Markdown that shows just this text, also in a table's cell."""
    text = harmless(text.replace("\n", " "), colours=False).replace("&", "&amp;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", text.replace("<", "&lt;"))
