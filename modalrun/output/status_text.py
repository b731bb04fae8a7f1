"""Show a run: its metadata, where it runs, and a line for each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from rich.text import Text

from modalrun.output.format import STYLES, duration, resources, with_attempt
from modalrun.output.live import ResizableLive
from modalrun.output.log_text import BarLines
from modalrun.output.reasons import told
from modalrun.output.status_json import app_url
from modalrun.output.terminal.console import (
    fitted,
    is_live,
    labelled,
    make_console,
    print_lines,
    width_of,
)
from modalrun.output.terminal.table import SHORT_NAME, bar_width, cell, state_cell, table
from modalrun.output.timeline_text import timeline_lines
from modalrun.run import failure
from modalrun.run.events import Redraw
from modalrun.run.outcome import LOST, child_details
from modalrun.run.records import UNBEGUN, StepRecord
from modalrun.run.status import RunStatus, may_be_rerun
from modalrun.run.timeline import Timeline

_LABELS = 10
"""Columns for the labels of the metadata."""

_START_WIDTH = 76
"""Columns of a terminal that shows when steps started."""

_OTHERS = SHORT_NAME + 2 * 9 + 16 + 4 * 2
"""Columns beside a progress bar at least: step, state, time, resources."""

_OTHER_ROWS = 18
"""Rows of a live picture that are not steps."""

_NEVER = datetime.min.replace(tzinfo=timezone.utc)

_QUIET = ("completed", "cached", "skipped", "waiting", "not run")
"""States of steps that are shown last where there is no room for all."""


def print_status(view: RunStatus) -> None:
    """Print a run to stdout."""
    shown = make_console(stderr=False)
    print_lines(shown, render(view, _now(), width_of(shown)))


def print_timeline(timeline: Timeline) -> None:
    """Print the timeline of a run to stdout, below its status."""
    shown = make_console(stderr=False)
    print_lines(shown, [Text(), *timeline_lines(timeline, width_of(shown))])


class LiveStatus:
    """Show a run that changes: redrawn on a terminal, a line for each change elsewhere."""

    def __init__(self) -> None:
        self._console = make_console(stderr=False)
        self._view: RunStatus | None = None
        self._printed: dict[str, tuple[datetime, str]] = {}
        self._bars = BarLines()
        self._over = False
        self._live: ResizableLive | None = None
        if is_live(self._console):
            self._live = ResizableLive(self._console, self._picture)

    def __enter__(self) -> LiveStatus:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            # The last picture stays, and has all steps.
            self._over = True
            self._live.stop()
        elif self._view is not None and kind is None:
            print_status(self._view)

    def show(self, view: RunStatus) -> None:
        """Show the run as it is now."""
        self._view = view
        if self._live is None:
            self._print_changes(view)
        elif self._live.is_started:
            self._live.refresh()
        else:
            # Until there is something to show, others may use the terminal.
            self._live.start(refresh=True)

    def _print_changes(self, view: RunStatus) -> None:
        now = _now()
        news: list[tuple[datetime, _Change]] = []
        for change in _changes(view):
            before, text = self._printed.get(change.key, (_NEVER, ""))
            if text != change.text:
                # A run that was lost and continues has not begun a second time.
                at = change.at if change.at and change.at > before else now
                news.append((at, change))
        # Changes that are noticed together have not happened together.
        for at, change in sorted(news, key=lambda one: one[0]):
            self._printed[change.key] = (at, change.text)
            line = f"{_local(at, now)} {change.subject}: {change.text}"
            print_lines(self._console, fitted(line, width_of(self._console)))
        for step in view.steps:
            bar = Redraw(step.name, view.bars.get(step.name, ""))
            if self._bars.due(bar):
                line = f"{_local(now, now)} step {bar.step}: {bar.text}"
                print_lines(self._console, fitted(line, width_of(self._console)))

    def _picture(self) -> list[Text]:
        if self._view is None:
            return []
        others = _OTHER_ROWS + len(child_details(self._view.run))
        rows = None if self._over else max(1, self._console.height - others)
        return render(self._view, _now(), width_of(self._console), rows=rows)


class _Change(NamedTuple):
    """A new state of a run or a step, or a note, and since when, where that is known."""

    subject: str
    text: str
    at: datetime | None = None

    @property
    def key(self) -> str:
        """What it replaces; there can be several notes."""
        return f"note {self.text}" if self.subject == "note" else self.subject


def _changes(view: RunStatus) -> Iterator[_Change]:
    for step in view.steps:
        if step.status not in UNBEGUN:
            text = with_attempt(step.status, step.attempt)
            text += f" ({step.reason})" if step.reason else ""
            began = step.start if step.status == "running" else step.since
            yield _Change(f"step {step.name}", text, step.end or began)
    run = view.run
    began = run.start if view.state == "running" else None
    yield _Change(f"run {run.name}", view.state, run.end if run.finished else began)
    for note in view.notes:
        yield _Change("note", note.text)


def render(
    view: RunStatus, now: datetime, width: int | None, *, rows: int | None = None
) -> list[Text]:
    """Render a run.

    Args:
        now: In UTC, without a zone.
        rows: How many steps there is room for; None for all.
    """
    lines = _metadata(view, now, width)
    steps, rest = foremost(view.steps, rows)
    if steps:
        lines += [Text(), *_steps(view, steps, now, width)]
    if rest:
        counts = Counter(step.status for step in rest)
        states = ", ".join(f"{count} {status}" for status, count in counts.items())
        lines.append(Text(f"and {len(rest)} more steps: {states}", style="dim"))
    if reasons := _reasons(steps, view, width):
        lines += [Text(), *reasons]
    for note in view.notes:
        lines += [Text(), *fitted(note.text, width, "yellow", indent=0)]
        lines += [line for command in note.commands for line in fitted(f"  {command}", None)]
    return lines


def _reasons(steps: Sequence[StepRecord], view: RunStatus, width: int | None) -> list[Text]:
    """Render why steps, or the sandboxes that they had before, ended as they did."""
    lines = []
    failed = {step.name for step in view.failed}
    for step in steps:
        replaced = step.metadata.infrastructure_retries if step.metadata else None
        if step.name in failed or not step.reason:
            continue
        text, style = f"  {step.name}: {step.reason}", "yellow"
        if replaced and step.status in {"running", "completed"}:
            times = "" if replaced == 1 else f", {replaced} times"
            text = f"{text} It was started again{times}, without using up a retry."
        lines += fitted(text, width, style, indent=4)
    shown = [step for step in steps if step.name in failed and step.reason]
    return lines + told(shown, view.run.id, width, "red")


def _metadata(view: RunStatus, now: datetime, width: int | None) -> list[Text]:
    run, metadata = view.run, view.run.metadata
    started = run.start or run.created
    told_below = any(
        run.reason == step.reason
        or (run.reason or "").startswith(failure.of_steps({step.name: ""}))
        for step in view.failed
    )
    values: dict[str, str | None] = {
        "id": run.id,
        "state": _described_state(view),
        "reason": None if told_below or not run.finished else run.reason,
        "next": view.next,
        "child of": run.parent,
        "rerun of": metadata.rerun_of if metadata else None,
        "rerun by": metadata.rerun_by if metadata else None,
        "rerun": f"modalrun rerun {run.id}" if may_be_rerun(run) else None,
        "pipeline": run.pipeline,
        "mode": run.place.mode if run.place else None,
        "target": _target(view),
        "stack": run.stack.name if run.stack else None,
        "started": f"{_local(started, now, whole=True)} ({_ago(started, now)})",
        "duration": duration(started, run.end or (None if view.over else now)),
        "app": _with_url(metadata.app, app_url(run)) if metadata else None,
        "sandbox": _sandbox(view),
        "zenml": run.url,
    }
    lines = [cell(f"Run {run.name}", "bold")]
    for label, value in (*values.items(), *child_details(run)):
        if value:
            style = STYLES.get(view.state, "") if label == "state" else ""
            lines += labelled(label, value, width, room=_LABELS, style=style)
    return lines


def _described_state(view: RunStatus) -> str:
    if view.state == LOST:
        return f"{LOST} (ZenML says '{view.run.zenml_status}')"
    if view.headline and view.over and view.run.status != "completed" and view.exit_code:
        return f"{view.state} (exit code {view.exit_code}): {view.headline}"
    return view.state


def _target(view: RunStatus) -> str | None:
    place = view.run.place
    if place is None:
        return None
    return place.target + (f", environment {place.environment}" if place.environment else "")


def _sandbox(view: RunStatus) -> str | None:
    metadata = view.run.metadata
    if metadata is None:
        return None
    presence = {
        "running": ", running",
        "waiting": ", waiting for a place",
        "unknown": ", not checked",
        "ended": f", ended with exit code {view.modal.exit_code}",
    }.get(view.presence, "")
    return _with_url(metadata.sandbox_id + presence, metadata.sandbox_url)


def _with_url(name: str, url: str | None) -> str:
    return f"{name}  {url}" if url else name


def foremost(
    steps: Sequence[StepRecord], rows: int | None
) -> tuple[Sequence[StepRecord], Sequence[StepRecord]]:
    """Split steps into those to show, where there is no room for all, and the rest.

    Steps that run come first, then those that ended badly; the order stays the graph's.
    """
    if rows is None or len(steps) <= rows:
        return steps, ()

    def rank(step: StepRecord) -> int:
        if step.status in _QUIET:
            return _QUIET.index(step.status) + 2
        return 1 if step.end is not None else 0

    chosen = {step.name for step in sorted(steps, key=rank)[:rows]}
    return (
        [step for step in steps if step.name in chosen],
        [step for step in steps if step.name not in chosen],
    )


def _steps(
    view: RunStatus, steps: Sequence[StepRecord], now: datetime, width: int | None
) -> list[Text]:
    served = Counter(one.metadata.sandbox_id for one in view.steps if one.metadata)
    roomy = width is None or width >= _START_WIDTH
    rows = [
        {
            "step": cell(step.name),
            "state": state_cell(step.status, step.attempt),
            **({"start": Text(_local(step.start, now) if step.start else "")} if roomy else {}),
            "time": Text(duration(step.start, step.end or (None if view.over else now))),
            "resources": cell(_resources(step, view)),
            **({"sandbox": cell(_step_sandbox(step, served))} if view.run.per_step else {}),
            **({"progress": cell(view.bars.get(step.name, ""))} if view.bars else {}),
        }
        for step in steps
    ]
    room = (width or _START_WIDTH) - _OTHERS
    return table(
        rows,
        width,
        cut={"progress": bar_width(room), "step": SHORT_NAME, "resources": 16},
        optional=("sandbox", "start"),
    )


def _step_sandbox(step: StepRecord, served: Mapping[str, int]) -> str:
    """Return a step's sandbox, and how many steps it has run if they are several."""
    sandbox = step.metadata.sandbox_id if step.metadata else ""
    return f"{sandbox} ({served[sandbox]} steps)" if served.get(sandbox, 0) > 1 else sandbox


def _resources(step: StepRecord, view: RunStatus) -> str:
    metadata = view.sandbox_of(step)
    if metadata is None or step.status in UNBEGUN:
        return ""
    return resources(metadata.gpu, metadata.cpu, metadata.memory)


def _local(at: datetime, now: datetime, *, whole: bool = False) -> str:
    """Format a moment in UTC as local time, with its day unless that is today."""
    here = at.astimezone()
    today = now.astimezone().date()
    if whole or here.date() != today:
        return here.strftime("%Y-%m-%d %H:%M:%S")
    return here.strftime("%H:%M:%S")


def _ago(at: datetime, now: datetime) -> str:
    passed = max(now - at, timedelta())
    if passed >= timedelta(days=2):
        return f"{passed.days} days ago"
    return f"{duration(at, at + passed)} ago"


def _now() -> datetime:
    return datetime.now(timezone.utc)
