"""Draw a run's timeline and graph as Mermaid, which GitHub shows in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modalrun.output.terminal.sanitize import harmless
from modalrun.run.records import StepRecord
from modalrun.run.timeline import Timeline
from modalrun.util.timeformat import duration_of

_MOST_CHARACTERS = 50_000
_MOST_EDGES = 500
"""What Mermaid draws at most (`maxTextSize` and `maxEdges` of 11.17, which GitHub leaves as they
are, 2026-11-28)."""

_LONGEST_NAME = 100
_LEAST_SHARE = 0.01
"""Of the timeline that a character of a bar's label needs."""

_MEANING = re.compile(r"[^\w ]|_")
_CLASSES = {
    "failed": "stroke:red,stroke-width:3px",
    "other": "stroke-dasharray:4",
}


def gantt(timeline: Timeline) -> str | None:
    """Draw the phases of each step; None if there are none, or too many."""
    rows = [(one.step.name, one.spans) for one in timeline.steps if one.spans]
    if timeline.run:
        rows.insert(0, ("(run)", timeline.run))
    lines = ["---", "displayMode: compact", "---", "gantt", "dateFormat x", "axisFormat %H:%M:%S"]
    for name, spans in rows:
        lines.append(f"section {_text(name)}")
        for span in spans:
            tag = "crit" if span.failed else "done" if span.phase != "run" else "active"
            # The moments are numbers without a unit, as `x` reads them.
            begin, end = (round(moment * 1000) for moment in (span.begin, span.end))
            seconds = span.end - span.begin
            label = duration_of(seconds) if span.phase == "run" else span.phase
            if seconds < _LEAST_SHARE * len(label) * (timeline.end - timeline.begin):
                # It would cover the bar beside it.
                label = "·"
            lines.append(f"{label} : {tag}, {begin}, {max(end, begin + 1)}")
    return _drawn(lines) if rows else None


def flowchart(steps: Sequence[StepRecord]) -> str | None:
    """Draw which step waits for which; None if none does, or if there are too many."""
    ids = {step.name: f"s{number}" for number, step in enumerate(steps)}
    edges = [
        f"{ids[name]} --> {ids[step.name]}"
        for step in steps
        for name in step.upstream
        if name in ids
    ]
    if not edges or len(edges) > _MOST_EDGES:
        return None
    nodes = []
    for step in steps:
        shown = "" if step.successful else "failed" if step.status == "failed" else "other"
        label = _text(step.name) + ("" if step.status == "completed" else f"<br>{step.status}")
        nodes.append(f'{ids[step.name]}["{label}"]{":::" if shown else ""}{shown}')
    styles = [f"classDef {name} {style}" for name, style in _CLASSES.items()]
    return _drawn(["flowchart LR", *nodes, *edges, *styles])


def _text(name: str) -> str:
    """Return a name of which no character has a meaning in any diagram, or in Markdown.

    Mermaid replaces `#` with a number and `;` before it reads a diagram, and shows the character.
    """
    name = harmless(name, colours=False).strip() or "-"
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
    return _MEANING.sub(lambda found: f"#{ord(found[0])};", name)


def _drawn(lines: Sequence[str]) -> str | None:
    text = "\n".join(lines)
    return f"```mermaid\n{text}\n```" if len(text) <= _MOST_CHARACTERS else None
