"""Print how a run ended: its steps, the headline, and how to see more."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from modalrun.output.console import fitted, labelled, print_lines, width_of
from modalrun.output.format import duration
from modalrun.output.sanitize import harmless
from modalrun.output.table import SHORT_NAME, cell, state_cell, table
from modalrun.run.outcome import Outcome

LONGEST_REASON = 500
"""Characters; the record in ZenML has all of them."""


def print_summary(console: Console, outcome: Outcome) -> None:
    """Print each step's state and time, the headline, why steps failed, and details."""
    width = width_of(console)
    lines: list[Text] = []
    if outcome.steps:
        has_gpu = any(step.gpu for step in outcome.steps)
        rows = [
            {
                "step": cell(step.name),
                "state": state_cell(step.state, step.attempt),
                "time": Text(duration(step.started, step.ended)),
                **({"gpu": cell(step.gpu or "-")} if has_gpu else {}),
            }
            for step in outcome.steps
        ]
        lines = [Text(), *table(rows, width, cut={"step": SHORT_NAME}), Text()]
    lines += fitted(outcome.headline, width, "bold red" if outcome.exit_code else "bold green")
    for step in outcome.steps:
        if step.state == "failed" and step.reason:
            lines += fitted(f"  {step.name}: {first_line(step.reason)}", width, indent=4)
    for label, value in outcome.details:
        lines += labelled(label, value, width, room=8)
    print_lines(console, lines)


def first_line(reason: str) -> str:
    """Return the first line of a reason, cut, with nothing in it that could do harm."""
    line = reason.strip().partition("\n")[0]
    cut = line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
    return harmless(cut, colours=False)
