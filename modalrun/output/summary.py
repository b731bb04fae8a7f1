"""Print how a run ended: its steps, the headline, and how to see more."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from modalrun.output.format import duration
from modalrun.output.reasons import told
from modalrun.output.terminal.console import fitted, labelled, print_lines, width_of
from modalrun.output.terminal.table import SHORT_NAME, cell, state_cell, table
from modalrun.output.timeline_text import with_bars
from modalrun.run.outcome import Outcome


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
        if outcome.timeline is not None and len(rows) > 1:
            spans = {one.step.name: one.spans for one in outcome.timeline.steps}
            drawn = [(row, spans.get(row["step"].plain, ())) for row in rows]
            shown = with_bars(outcome.timeline, drawn, width)
        else:
            shown = table(rows, width, cut={"step": SHORT_NAME})
        lines = [Text(), *shown, Text()]
    lines += fitted(outcome.headline, width, "bold red" if outcome.exit_code else "bold green")
    lines += told(outcome.failed, outcome.run_id, width)
    for label, value in outcome.details:
        lines += labelled(label, value, width, room=8)
    print_lines(console, lines)
