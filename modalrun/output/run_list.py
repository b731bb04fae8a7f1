"""The list of runs, for people and as one versioned JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal

from rich.table import Table
from rich.text import Text

from modalrun.observe.list_runs import ListedRun
from modalrun.output.console import make_console, print_wide
from modalrun.output.format import STYLES, duration
from modalrun.output.sanitize import harmless
from modalrun.output.status_json import run_fields
from modalrun.plan.prices import LIST_PRICES
from modalrun.plan.pricing import dollars

VERSION = 1
SHORT = 8
"""Digits of a run id that are shown: enough to mean one run among tens of thousands."""


def as_json(found: Sequence[ListedRun]) -> str:
    """The runs for programs, newest first: times in UTC, durations in seconds, cost in USD."""
    document = {
        "format": "modalrun-list",
        "version": VERSION,
        "currency": "USD",
        "prices_as_of": LIST_PRICES.as_of,
        "runs": [
            {
                **run_fields(listed.run),
                "state": listed.run.status,
                "finished": listed.run.finished,
                "cost_estimate": None if listed.cost is None else f"{listed.cost:.6f}",
            }
            for listed in found
        ],
    }
    return json.dumps(document, indent=2)


# Column -> how wide a terminal has to be for it.
_COLUMNS = {
    "run": 0,
    "name": 0,
    "pipeline": 130,
    "state": 0,
    "mode": 110,
    "target": 90,
    "started": 60,
    "time": 0,
    "cost": 75,
}
_RIGHT = frozenset({"time", "cost"})


def print_list(found: Sequence[ListedRun]) -> None:
    """Print the runs to stdout, a line each."""
    shown = make_console(stderr=False)
    now = datetime.now(timezone.utc)
    rows = [_row(listed, now) for listed in found]
    columns = [
        name for name, width in _COLUMNS.items() if not shown.is_terminal or shown.width >= width
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if column in _RIGHT else "left",
        )
    room = shown.width - sum(
        2 + max(len(column), *(len(row[column]) for row in rows))
        for column in columns
        if column != "name"
    )
    for row in rows:
        if shown.is_terminal:
            row["name"].truncate(max(SHORT, room), overflow="ellipsis")
        table.add_row(*(row[column] for column in columns))
    print_wide(shown, table)


def _row(listed: ListedRun, now: datetime) -> dict[str, Text]:
    run = listed.run
    started = run.start or run.created
    here = started.astimezone()
    this_year = here.year == datetime.now().year
    values = {
        "run": run.id[:SHORT],
        "name": run.name,
        "pipeline": run.pipeline,
        "mode": run.metadata.mode if run.metadata else "-",
        "target": run.metadata.target if run.metadata else "-",
        "started": here.strftime("%m-%d %H:%M" if this_year else "%Y-%m-%d"),
        "time": duration(started, run.end or (None if run.finished else now)),
        "cost": _cost(listed.cost),
    }
    row = {column: Text(harmless(value, colours=False)) for column, value in values.items()}
    return {**row, "state": Text(run.status, style=STYLES.get(run.status, ""))}


def _cost(cost: Decimal | None) -> str:
    if cost is None:
        return "?"
    return f"~{dollars(cost)}" if cost else "-"
