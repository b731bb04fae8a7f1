"""Show the list of runs: as a table, or as one versioned JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal

from rich.text import Text

from modalrun.observe.list_runs import ListedRun
from modalrun.output.format import duration
from modalrun.output.reasons import first_line
from modalrun.output.status_json import run_fields
from modalrun.output.terminal.console import fitted, make_console, print_lines, width_of
from modalrun.output.terminal.table import cell, state_cell, table
from modalrun.plan.pricing import LIST_PRICES, dollars
from modalrun.run.outcome import PAUSED

VERSION = 1
SHORT_ID = 8
"""Digits of a run id that are shown: enough for one run among tens of thousands."""

_NAME = 24
"""Columns that the name of a run keeps."""

_OPTIONAL = ("pipeline", "mode", "target", "cost", "started")
"""Columns that a narrow terminal doesn't show, the first of them first."""


def as_json(found: Sequence[ListedRun]) -> str:
    """Render the runs for programs: times in UTC, durations in seconds, cost in USD."""
    document = {
        "format": "modalrun-list",
        "version": VERSION,
        "currency": "USD",
        "prices_as_of": LIST_PRICES.as_of,
        "runs": [
            {
                **run_fields(listed.run, listed.place),
                "parent": listed.run.parent,
                "state": listed.run.status,
                "finished": listed.run.finished,
                "reason": listed.run.reason,
                "next": listed.run.next,
                "cost_estimate": None if listed.cost is None else f"{listed.cost:.6f}",
            }
            for listed in found
        ],
    }
    return json.dumps(document, indent=2)


def print_list(found: Sequence[ListedRun]) -> None:
    """Print a line for each run to stdout; one run or more. `status` has the advice."""
    shown = make_console(stderr=False)
    now = datetime.now(timezone.utc)
    rows = [_row(listed, now) for listed in found]
    width = width_of(shown)
    head, *lines = table(rows, width, cut={"name": _NAME}, optional=_OPTIONAL)
    result = [head]
    helped: list[str] = []
    room = SHORT_ID + 2
    for listed, line in zip(found, lines, strict=True):
        result.append(line)
        if (root := listed.root) is not None:
            part = f"{' ' * room}part of {root.name} ({root.id[:SHORT_ID]})"
            result += fitted(part, width, indent=room)
        if listed.run.status == "failed" and listed.run.reason:
            reason = f"{' ' * room}{first_line(listed.run.reason)}"
            result += fitted(reason, width, "red", indent=room)
            if listed.run.next:
                helped.append(listed.run.id[:SHORT_ID])
    if helped:
        run = helped[0] if len(helped) == 1 else "RUN"
        result += [Text(), *fitted(f"next: 'modalrun status {run}' says what helps", width)]
    print_lines(shown, result)


def _row(listed: ListedRun, now: datetime) -> dict[str, Text]:
    run = listed.run
    started = run.start or run.created
    unknown = "?" if run.wrong_metadata else "-"
    here = started.astimezone()
    over = run.finished or run.status == PAUSED
    this_year = here.year == datetime.now().year
    values = {
        "run": run.id[:SHORT_ID],
        "name": run.name,
        "pipeline": run.pipeline,
        "state": run.status,
        "mode": listed.place.mode if listed.place else unknown,
        "target": listed.place.target if listed.place else unknown,
        "started": here.strftime("%m-%d %H:%M" if this_year else "%Y-%m-%d"),
        "time": duration(started, run.end if over else run.latest(now)),
        "cost": _cost(listed.cost),
    }
    row = {column: cell(value) for column, value in values.items()}
    return {**row, "state": state_cell(run.status)}


def _cost(cost: Decimal | None) -> str:
    if cost is None:
        return "?"
    amount = dollars(cost)
    return f"{'' if amount.startswith('below') else '~'}{amount}" if cost else "-"
