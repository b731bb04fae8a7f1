"""Render a run as one HTML page that needs nothing but a browser. Pure.

Whatever comes from a run is escaped by Jinja, cleaned of what hides text, and can't load or run
anything: the page's policy forbids it.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from modalrun import __version__
from modalrun.observe.report import Report
from modalrun.output.format import duration, resources
from modalrun.output.reasons import logs_command
from modalrun.output.report_drawing import CSS, charts, graph, phases, spans, ticks
from modalrun.output.status_json import app_url
from modalrun.output.terminal.sanitize import harmless
from modalrun.plan.pricing import LIST_PRICES, dollars
from modalrun.run.artifacts import Artifact, Visualization
from modalrun.run.records import StepRecord
from modalrun.run.timeline import PHASES, StepTimeline
from modalrun.util.text import listing
from modalrun.util.timeformat import duration_of

MOST_FAILURES = 20
"""Failed steps that are told with traceback and output; a run may have hundreds."""

MOST_CHARTS = 30
"""Steps whose usage is drawn: those that took the longest."""

_TABLE_ROWS, _TABLE_COLUMNS, _TEXT_LINES = 100, 20, 400

_TONES = {
    **dict.fromkeys(("completed", "cached", "skipped"), "ok"),
    **dict.fromkeys(("failed", "lost"), "bad"),
    **dict.fromkeys(("stopped", "stopping", "paused", "retrying", "retried"), "warn"),
    **dict.fromkeys(("running", "starting", "provisioning", "initializing"), "live"),
}
_PHASES = {"failed": "run that failed"}
_IMAGES = {
    b"\x89PNG": "png",
    b"\xff\xd8": "jpeg",
    b"GIF8": "gif",
    b"RIFF": "webp",
    b"<svg": "svg+xml",
    b"<?xm": "svg+xml",
}


def render(report: Report) -> str:
    """Render the report of a run."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    return environment.get_template("report.html.j2").render(_page(report))


def _clean(value: Any) -> Any:
    """Remove what could hide or reorder text."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return harmless(value, colours=False)
    return value


def _page(report: Report) -> dict[str, Any]:
    view, run = report.view, report.view.run
    anchors = {one.step.name: f"step-{n}" for n, one in enumerate(report.timeline.steps)}
    failed = view.failed
    usage, unshown = _usage(report, anchors)
    cards = [_artifact(one, run.url, anchors) for one in report.artifacts]
    cards.sort(key=lambda one: not one["wide"])
    taken = {step.name for step in view.steps if step.status in {"cached", "skipped"}}
    headline = run.reason if view.state != "completed" and run.reason else view.headline
    page: dict[str, Any] = {
        "title": run.pipeline or run.name,
        "state": view.state,
        "tone": _tone(view.state),
        "run_name": run.name,
        "run_id": run.id,
        "related": report.related,
        # A name is in backticks, as in Markdown.
        "headline": headline and headline.replace("`", "'"),
        "facts": list(_facts(report)),
        "notes": [*view.notes, *report.notes],
        "failures": [_failure(step, report, anchors) for step in failed[:MOST_FAILURES]],
        "legend": [{"css": CSS[p], "name": _PHASES.get(p, p)} for p in phases(report.timeline)],
        "ticks": ticks(report.timeline),
        "rows": list(_rows(report, anchors)),
        "graph": graph([one.step for one in report.timeline.steps], anchors, _TONES),
        "unshown_failures": len(failed) - MOST_FAILURES,
        "usage": usage,
        "unshown_usage": unshown,
        "steps": [_step(one, report, anchors) for one in report.timeline.steps],
        "cost_note": _cost_note(report),
        "children": [(label, one, _tone(one.status)) for label, one in run.children.items()],
        "artifacts": [one for one in cards if one["step"] not in taken],
        "earlier": [one for one in cards if one["step"] in taken],
        "spec": report.spec,
        "plan": report.plan,
        "footer": f"modalrun {__version__}, {_moment(report.now)}, from the records in ZenML."
        + ("" if view.over else " The run goes on; this is how it stood then."),
        "refresh": f"modalrun report {run.id}",
    }
    names = ["failures", "timeline", "graph", "usage", "steps"]
    names += ["children", "artifacts", "configuration"]
    shown = {"failures": failed, "usage": usage, "children": run.children, "artifacts": cards}
    titles = {"failures": "What failed", "children": "Child pipelines"}
    page["sections"] = [
        (titles.get(name, name.capitalize()), name) for name in names if shown.get(name, True)
    ]
    return page


def _facts(report: Report) -> Iterator[dict[str, str | None]]:
    view, run, place = report.view, report.view.run, report.view.run.place
    metadata = run.metadata

    def fact(label: str, value: str, more: str | None = None, url: str | None = None) -> Any:
        return {"label": label, "value": value, "more": more, "url": _link(url)}

    began = run.start or run.created
    took = duration(began, run.end or (None if view.over else report.now)) or "unknown"
    yield fact("Duration", took if view.over else f"{took} so far", _moment(began))
    about = report.cost.about
    if place is not None and place.target == "local":
        yield fact("Cost", "nothing", about and f"on Modal {about}")
    elif place is not None and metadata is None and run.finished:
        yield fact("Cost", "nothing", "it had no sandbox")
    elif place is not None:
        yield fact("Cost", about or "unknown", f"list prices of {LIST_PRICES.as_of}")
    counts = Counter(step.status for step in view.steps)
    done = sum(step.successful for step in view.steps)
    others = [f"{n} {status}" for status, n in counts.items() if status != "completed"]
    yield fact("Steps", f"{done} of {len(view.steps)} done", ", ".join(others) or None)
    if run.user is not None:
        yield fact("Submitted by", run.user.name, f"stack {run.stack.name}" if run.stack else None)
    if place is not None:
        where = "local Modal server" if place.target == "local" else "Modal"
        environment = f", environment {place.environment}" if place.environment else ""
        yield fact("Where", where, f"{place.app}{environment}, {place.mode}", app_url(run))
    if metadata is not None:
        asked = resources(metadata.gpu, metadata.cpu, metadata.memory)
        yield fact("Run sandbox", asked or "default", metadata.sandbox_id, metadata.sandbox_url)
    if metadata is not None and metadata.commit:
        yield fact("Commit", metadata.commit[:10], "checked out when it was submitted")
    if run.url:
        yield fact("ZenML", "Dashboard", urlsplit(run.url).hostname, run.url)


def _rows(report: Report, anchors: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    line = report.timeline
    if line.run:
        drawn, label = spans(line, line.run)
        name = "run sandbox"
        whole = duration_of(max(0.0, line.end - line.begin))
        yield {"name": name, "anchor": None, "spans": drawn, "label": f"{name}: {label}"} | {
            "time": whole
        }
    for one in line.steps:
        step = one.step
        drawn, label = spans(line, one.spans)
        took = _took(one, report) or step.status
        yield {
            "name": step.name,
            "anchor": anchors[step.name],
            "spans": drawn,
            "label": f"{step.name}, {step.status}" + (f": {label}" if label else ""),
            "time": took,
        }


def _took(one: StepTimeline, report: Report) -> str:
    """Return how long the last attempt has taken, as `status` says it."""
    end = one.step.end or (None if report.view.over else report.now)
    return duration(one.step.start, end) if one.spans else ""


def _failure(step: StepRecord, report: Report, anchors: Mapping[str, str]) -> dict[str, Any]:
    failure = step.failure
    return {
        "name": step.name,
        "anchor": anchors[step.name],
        "state": step.status,
        "tone": _tone(step.status),
        "place": failure.place if failure else None,
        "reason": step.reason or "Its output says why.",
        "trace": failure.trace if failure else (),
        "output": report.output.get(step.name, ()),
        "command": logs_command(step.name, report.view.run.id),
    }


def _step(one: StepTimeline, report: Report, anchors: Mapping[str, str]) -> dict[str, Any]:
    step = one.step
    known = [phase for phase in PHASES if any(span.phase == phase for span in one.spans)]
    attempts = []
    for attempt in one.attempts:
        times: Counter[str] = Counter()
        for span in one.spans:
            if span.attempt == attempt.attempt:
                times[span.phase] += span.end - span.begin  # type: ignore[assignment]
        asked = attempt.metadata
        warm = f" (idle {duration_of(asked.idle)} before)" if asked and asked.idle else ""
        attempts.append(
            {
                "number": attempt.attempt,
                "state": attempt.status,
                "start": attempt.start.strftime("%H:%M:%S") if attempt.start else "",
                "phases": [duration_of(times[p]) if times[p] else "" for p in known],
                "resources": resources(asked.gpu, asked.cpu, asked.memory) if asked else "",
                "sandbox": f"{asked.sandbox_id}{warm}" if asked else "",
            }
        )
    cost = report.cost.steps.get(step.name)
    return {
        "name": step.name,
        "anchor": anchors[step.name],
        "state": step.status,
        "tone": _tone(step.status),
        "time": _took(one, report),
        "cost": dollars(cost) if cost else "",
        "reason": step.reason,
        "upstream": listing(step.upstream, 10),
        "attempts": attempts,
        "own": any(attempt.metadata for attempt in one.attempts),
        "phases": known,
    }


def _cost_note(report: Report) -> str | None:
    place = report.view.run.place
    if place is None or not any(report.cost.steps.values()):
        return None
    per_step = place.mode == "per_step"
    what = "the time of its sandboxes" if per_step else "its share of the run sandbox"
    local = " The local Modal server costs nothing." if place.target == "local" else ""
    return f"The cost of a step is {what} at Modal's list prices of {LIST_PRICES.as_of}.{local}"


def _usage(report: Report, anchors: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """Return the charts of the steps that took the longest, and how many others are left out."""
    measured = [
        (attempt.usage, attempt.metadata or report.view.run.metadata, attempt.name)
        for one in report.timeline.steps
        for attempt in one.attempts[-1:]
        if attempt.usage is not None and attempt.usage.points and one.spans
    ]
    longest = sorted(measured, key=lambda one: -one[0].seconds)[:MOST_CHARTS]
    shown = [
        {"name": name, "anchor": anchors[name], "charts": charts(usage, asked)}
        for usage, asked, name in measured
        if (usage, asked, name) in longest
    ]
    return shown, len(measured) - len(shown)


def _artifact(one: Artifact, url: str | None, anchors: Mapping[str, str]) -> dict[str, Any]:
    pictures = [_picture(visualization, one.name) for visualization in one.visualizations]
    return {
        "name": one.name,
        "version": one.version,
        "kind": one.kind,
        "step": one.step,
        "anchor": anchors.get(one.step, "steps"),
        "uri": one.uri,
        "url": _link(url),
        "pictures": pictures,
        "wide": any(picture["kind"] in {"image", "html", "table"} for picture in pictures),
    }


def _picture(one: Visualization, name: str) -> dict[str, Any]:
    label, kind, content = f"Visualization of {name}", one.kind, one.content
    found: dict[str, Any] = {"kind": "note", "content": content, "label": label}
    if kind == "image" and isinstance(content, bytes):
        mime = next((mime for magic, mime in _IMAGES.items() if content.startswith(magic)), None)
        if mime is None:
            return found | {"content": "An image of an unknown format."}
        encoded = base64.b64encode(content).decode()
        return found | {"kind": "image", "content": f"data:image/{mime};base64,{encoded}"}
    text = str(content)
    if kind == "html":
        # Escaped here: the lines of a document must stay lines.
        return found | {"kind": "html", "content": escape(text)}
    # What can't be read as its kind is shown as text.
    with contextlib.suppress(ValueError, RecursionError, csv.Error):
        if kind == "csv":
            rows = islice(csv.reader(io.StringIO(text, newline="")), _TABLE_ROWS)
            return found | {"kind": "table", "content": [row[:_TABLE_COLUMNS] for row in rows]}
        if kind == "json":
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    if kind in {"markdown", "json", "csv"}:
        return found | {"kind": "text", "content": text.splitlines()[:_TEXT_LINES]}
    return found


def _tone(state: str) -> str:
    return _TONES.get(state, "quiet")


def _moment(at: datetime) -> str:
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _link(url: str | None) -> str | None:
    """Return a URL that a browser may open; None for any other."""
    return url if url and urlsplit(url).scheme in {"http", "https"} else None
