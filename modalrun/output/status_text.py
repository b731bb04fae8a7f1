"""A run for people: what it is, where it runs, and a line a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from modalrun.output.console import make_console, print_wide
from modalrun.output.format import STYLES, duration
from modalrun.output.redrawing import Redrawn
from modalrun.output.sanitize import harmless
from modalrun.output.status_json import app_url, exit_reason
from modalrun.output.step_labels import shortened
from modalrun.output.wrapping import wrapped
from modalrun.run.records import StepRecord
from modalrun.run.status import LOST, RunStatus

WIDE = 110
"""Columns from which on there is room for the sandbox of each step."""

MIDDLE = 76
"""Columns from which on there is room for when a step started."""

_TITLES = 10

_AROUND = 18
"""Lines that a live picture has besides its steps."""


def print_status(view: RunStatus) -> None:
    """Print a run to stdout."""
    shown = make_console(stderr=False)
    print_wide(shown, _rendered(view, _now(), _width(shown)))


class LiveStatus:
    """A run that changes: drawn again and again on a terminal, a line a change elsewhere."""

    def __init__(self) -> None:
        self._console = make_console(stderr=False)
        self._view: RunStatus | None = None
        self._said: dict[str, tuple[datetime, str]] = {}
        self._over = False
        self._live: Redrawn | None = None
        if self._console.is_terminal:
            self._live = Redrawn(self._console, self._current, redirect=True)

    def __enter__(self) -> LiveStatus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            # The last picture stays, and has all steps.
            self._over = True
            self._live.stop()
        elif self._view is not None and kind is None:
            print_status(self._view)

    def show(self, view: RunStatus) -> None:
        """The run as it is now."""
        self._view = view
        if self._live is not None:
            if self._live.is_started:
                self._live.refresh()
            else:
                # Until there is something to show, others may use the terminal.
                self._live.start(refresh=True)
            return
        now = _now()
        news: list[tuple[datetime, _Change]] = []
        for change in _changes(view):
            before, words = self._said.get(change.subject, (_NEVER, ""))
            if words != change.words:
                # A run that was lost and goes on has not begun a second time.
                at = change.at if change.at and change.at > before else now
                news.append((at, change))
        # What was noticed together has not happened together.
        for at, change in sorted(news, key=lambda one: one[0]):
            self._said[change.subject] = (at, change.words)
            text = f"{_local(at, now)} {change.subject}: {change.words}"
            self._console.print(Text(harmless(text, colours=False)))

    def _current(self) -> RenderableType:
        if self._view is None:
            return Text("")
        rows = None if self._over else max(1, self._console.height - _AROUND)
        return _rendered(self._view, _now(), _width(self._console), rows=rows)


class _Change(NamedTuple):
    """That something is in a state, and since when, where that is known."""

    subject: str
    words: str
    at: datetime | None = None


def _changes(view: RunStatus) -> Iterator[_Change]:
    for step in view.steps:
        if step.status != "not run":
            reason = exit_reason(step)
            words = _state(step) + (f" ({reason})" if reason else "")
            began = step.start if step.status == "running" else step.since
            yield _Change(f"step {step.name}", words, step.end or began)
    run = view.run
    begun = run.start if view.state == "running" else None
    yield _Change(f"run {run.name}", view.state, run.end if run.finished else begun)
    for note in view.notes:
        yield _Change("note", note.text)


def _rendered(view: RunStatus, now: datetime, width: int, *, rows: int | None = None) -> Group:
    parts: list[RenderableType] = [_head(view, now, width)]
    steps, rest = foremost(view.steps, rows)
    if steps:
        parts += [Text(""), _steps(view, steps, now, width)]
    if rest:
        counts = Counter(step.status for step in rest)
        words = ", ".join(f"{count} {status}" for status, count in counts.items())
        parts.append(Text(f"and {len(rest)} more steps: {words}", style="dim"))
    shown = [line for step in steps if exit_reason(step) for line in _reason(step, width)]
    if shown:
        parts += [Text(""), *shown]
    for note in view.notes:
        told = wrapped(harmless(note.text, colours=False), width, indent=0)
        parts += [Text(""), *(Text(line, style="yellow") for line in told)]
        parts += [Text(f"  {command}", no_wrap=True) for command in note.commands]
    return Group(*parts)


def _reason(step: StepRecord, width: int) -> list[Text]:
    """Why a step, or the sandbox that it had before, ended as it did."""
    replaced = step.metadata.infrastructure_retries if step.metadata else None
    text, style = f"  {step.name}: {exit_reason(step)}", "red"
    if replaced and step.status in {"running", "completed"}:
        times = "" if replaced == 1 else f", {replaced} times"
        text, style = f"{text} It was started again{times}, at no retry's cost.", "yellow"
    told = wrapped(harmless(text, colours=False), width, indent=4)
    return [Text(line, style=style) for line in told]


def _head(view: RunStatus, now: datetime, width: int) -> Group:
    run, facts = view.run, view.run.metadata
    started = run.start or run.created
    rows: list[tuple[str, str | None, str]] = [
        ("id", run.id, ""),
        ("state", _described_state(view), _style(view.state)),
        ("reason", run.reason if run.finished else None, ""),
        ("pipeline", run.pipeline, ""),
        ("mode", facts.mode if facts else None, ""),
        ("target", _target(view), ""),
        ("stack", run.stack.name if run.stack else None, ""),
        ("started", f"{_local(started, now, whole=True)} ({_ago(started, now)})", ""),
        ("duration", duration(started, run.end or (None if view.over else now)) or None, ""),
        ("app", _place(facts.app, app_url(run)) if facts else None, ""),
        ("sandbox", _sandbox(view), ""),
        ("zenml", run.url, ""),
    ]
    lines = [Text(harmless(f"Run {run.name}", colours=False), style="bold")]
    for label, value, style in rows:
        if value:
            text = harmless(value.replace("\n", " "), colours=False)
            indent = 2 + _TITLES
            first, *rest = wrapped(f"  {label:<{_TITLES}}{text}", width, indent=indent)
            lines.append(Text.assemble((first[:indent], "dim"), (first[indent:], style)))
            lines += [Text(line, style=style) for line in rest]
    return Group(*lines)


def _described_state(view: RunStatus) -> str:
    if view.state == LOST:
        return f"{LOST} (ZenML says '{view.run.status}')"
    if view.headline and view.over and view.run.status != "completed" and view.exit_code:
        return f"{view.state} (exit code {view.exit_code}): {view.headline}"
    return view.state


def _target(view: RunStatus) -> str | None:
    facts = view.run.metadata
    if facts is None:
        return None
    return facts.target + (f", environment {facts.environment}" if facts.environment else "")


def _sandbox(view: RunStatus) -> str | None:
    facts = view.run.metadata
    if facts is None:
        return None
    presence = {"running": ", running", "unknown": ", not checked"}.get(view.modal.sandbox, "")
    if view.modal.sandbox == "ended":
        presence = f", ended with exit code {view.modal.exit_code}"
    return _place(facts.sandbox_id + presence, facts.sandbox_url)


def _place(name: str, url: str | None) -> str:
    return f"{name}  {url}" if url else name


def foremost(
    steps: Sequence[StepRecord], rows: int | None
) -> tuple[Sequence[StepRecord], Sequence[StepRecord]]:
    """Where there is no room for all steps: those to show, and the rest.

    Steps that move come first, then those that ended badly; the order stays the graph's.
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


_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_QUIET = ("completed", "cached", "not run")


def _steps(view: RunStatus, steps: Sequence[StepRecord], now: datetime, width: int) -> Table:
    own = view.run.metadata is not None and view.run.metadata.mode == "per_step"
    columns = ["step", "state", *(["start"] if width >= MIDDLE else []), "time", "resources"]
    columns += ["sandbox"] if own and width >= WIDE else []
    rows = [
        {
            "step": Text(harmless(step.name, colours=False)),
            "state": Text(_state(step), style=_style(step.status)),
            "start": Text(_local(step.start, now) if step.start else ""),
            "time": Text(duration(step.start, step.end or (None if view.over else now))),
            "resources": Text(_resources(step, view)),
            "sandbox": Text(step.metadata.sandbox_id if step.metadata else ""),
        }
        for step in steps
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column == "time" else "left"
        table.add_column(column, no_wrap=True, overflow="ellipsis", justify=justify)
    widths = {c: max(len(c), *(row[c].cell_len for row in rows)) for c in columns}
    # What there is too much of is cut from the names, then from the resources.
    for column, least in (("step", 12), ("resources", 9)):
        excess = sum(widths.values()) + 2 * len(columns) - width
        widths[column] -= max(0, min(excess, widths[column] - least))
    looks = shortened((row["step"].plain for row in rows), widths["step"])
    for row in rows:
        row["step"] = Text(looks[row["step"].plain])
        row["resources"].truncate(widths["resources"], overflow="ellipsis")
        table.add_row(*(row[column] for column in columns))
    return table


def _state(step: StepRecord) -> str:
    return step.status if step.attempt == 1 else f"{step.status} (try {step.attempt})"


def _resources(step: StepRecord, view: RunStatus) -> str:
    facts = step.metadata or view.run.metadata
    if facts is None or step.status == "not run":
        return ""
    parts = [facts.gpu] if facts.gpu else []
    parts += [f"{facts.cpu:g} cpu"] if facts.cpu else []
    parts += [f"{facts.memory} MiB"] if facts.memory else []
    return harmless(", ".join(parts), colours=False)


def _style(state: str) -> str:
    return STYLES.get(state, "bold red" if state == LOST else "")


def _local(at: datetime, now: datetime, *, whole: bool = False) -> str:
    """A moment in UTC as a clock on the user's wall shows it; with its day if that isn't today."""
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


def _width(shown: Console) -> int:
    """A pipe has no width: nothing is left out for it."""
    return shown.width if shown.is_terminal else 10_000
