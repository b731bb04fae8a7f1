"""The list of runs, for people and as one versioned JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal

from rich.table import Table
from rich.text import Text

from modalrun.listing import ListedRun
from modalrun.output.console import STYLES, duration, make_console
from modalrun.output.status_json import run_fields
from modalrun.output.text import harmless
from modalrun.prices import LIST_PRICES
from modalrun.pricing import dollars

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


def print_list(found: Sequence[ListedRun]) -> None:
    """Print the runs to stdout, a line each."""
    shown = make_console(stderr=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "name", "pipeline", "state", "mode", "target", "started"):
        shrinks = title in {"name", "pipeline"}
        table.add_column(
            title, no_wrap=True, overflow="ellipsis", min_width=SHORT if shrinks else None
        )
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for listed in found:
        table.add_row(*_row(listed, now))
    if shown.is_terminal:
        shown.print(table)
    else:
        # A pipe has no width: each line is as long as it needs to be.
        shown.print(table, width=10_000)


def _row(listed: ListedRun, now: datetime) -> list[str | Text]:
    run = listed.run
    started = run.start or run.created
    here = started.replace(tzinfo=timezone.utc).astimezone()
    return [
        run.id[:SHORT],
        Text(harmless(run.name, colours=False)),
        Text(harmless(run.pipeline, colours=False)),
        Text(run.status, style=STYLES.get(run.status, "")),
        run.facts.mode if run.facts else "-",
        run.facts.target if run.facts else "-",
        here.strftime("%Y-%m-%d %H:%M"),
        duration(started, run.end or (None if run.finished else now)),
        _cost(listed.cost),
    ]


def _cost(cost: Decimal | None) -> str:
    if cost is None:
        return "?"
    return f"~{dollars(cost)}" if cost else "-"
