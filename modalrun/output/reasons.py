"""Show why a step ended as it did: the same in a summary, a status and a job's annotations."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.text import Text

from modalrun.output.terminal.console import fitted
from modalrun.output.terminal.sanitize import harmless
from modalrun.run.progress import StepProgress
from modalrun.run.records import StepRecord

LONGEST_REASON = 500
"""Characters; the record in ZenML has all of them."""

_WITH_LINES = 20
"""Failed steps that are shown with their last lines; a run may have hundreds."""


def told(
    steps: Sequence[StepProgress | StepRecord], run_id: str, width: int | None, style: str = ""
) -> list[Text]:
    """Render why failed steps have failed: a line, the last lines of each, and where to see more.

    Args:
        steps: The steps that have failed, each with its reason.
    """
    lines = []
    for number, step in enumerate(steps):
        name = harmless(step.name, colours=False)
        lines += fitted(
            f"  {name}: {first_line(step.reason or 'its output says why')}", width, style, indent=4
        )
        if number < _WITH_LINES:
            for line in step.failure.lines if step.failure else ():
                lines += fitted(f"      {line}", width, "dim", indent=10)
        if step.next:
            lines += fitted(f"    next: {step.next}", width, indent=10)
        lines.append(Text(f"    {logs_command(step.name, run_id)}"))
    return lines


def logs_command(step: str, run_id: str) -> str:
    """Return the command that shows the output of a step."""
    return f"modalrun logs {run_id} --step {shlex.quote(harmless(step, colours=False))}"


def first_line(reason: str) -> str:
    """Return the first line of a reason, cut, with nothing in it that could do harm."""
    line = reason.strip().partition("\n")[0]
    cut = line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
    return harmless(cut, colours=False)
