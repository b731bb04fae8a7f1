"""Read the log lines of a run: stored ones first, then live ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modalrun.errors import AuthenticationError, ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api.gateway import MODAL
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.observe import log_filter, resumption
from modalrun.observe.log_source import LogSource
from modalrun.observe.log_stream import LogStream
from modalrun.observe.stored_logs import StoredLogs
from modalrun.run.log_lines import LineFilter, LineSelection, LogLine, RunLines
from modalrun.run.outcome import PAUSED
from modalrun.run.records import StepRecord
from modalrun.run.status import may_be_resumed
from modalrun.util.retry import while_connection_lost
from modalrun.zenml_api.gateway import ZENML

Say = Callable[[str], None]


@dataclass(frozen=True)
class LogRequest:
    """Which lines to read.

    Attributes:
        filter: Which lines to show.
        follow: Whether to wait for more until the run is over.
        tail: How many of the newest lines to show before those that come; None for all.
        times: Whether each line's time is needed, which live streams don't have.
    """

    filter: LineFilter
    follow: bool = False
    tail: int | None = None
    times: bool = False


def read(source: LogSource, request: LogRequest, say: Say) -> Iterator[list[LogLine]]:
    """Read the lines of a run in batches: by time where that is known, else as they come.

    Args:
        say: Receives a sentence when they come from an unusual place.

    Raises:
        ConnectionLostError: The connection is lost for good; the run may continue.
        AuthenticationError: Modal refuses the token.
        NotFoundError: Neither Modal nor ZenML has lines of the run, or of a step that is
            requested; or there is no such step; or the run was deleted meanwhile; or Modal does not
            know the sandbox that is followed.
    """
    lines = RunLines(source.sandbox, source.earlier)
    selection = LineSelection(request.filter, lines)
    names = request.filter.steps
    live = request.follow and source.running and source.connection is not None
    if live and names:
        while_connection_lost(lambda: _check_names(source, names), say)
    stored = StoredLogs(source, lines)
    if not live or request.times or request.tail is not None:
        newest: deque[LogLine] = deque(maxlen=request.tail)
        for items in stored.read(say, live=live):
            if request.tail is None:
                yield selection.select(items)
            else:
                newest.extend(selection.select(items))
        if not live:
            newest.extend(selection.rest())
        yield list(newest)
    if live:
        yield from _follow(stored, selection, say, times=request.times)
    yield selection.rest()
    if missing := [n for n in names if not log_filter.matches_any(n, selection.printed)]:
        raise while_connection_lost(lambda: _no_lines(missing, source, selection), say)


def _check_names(source: LogSource, names: Sequence[str]) -> None:
    """Refuse names of steps that never come."""
    source.use_zenml()
    steps = ZENML.step_names(source.run_id)
    if steps is not None and (error := log_filter.unknown_steps(names, steps)):
        raise error


def _no_lines(names: Sequence[str], source: LogSource, selection: LineSelection) -> NotFoundError:
    """Explain why the steps of some names have no lines."""
    source.use_zenml()
    run, recorded = ZENML.read_run_and_steps(source.run_id)
    # The steps of child pipelines are in the records of other runs.
    others = selection.states.keys() - {step.name for step in recorded}
    steps = [*recorded, *(StepRecord(one, selection.states[one]) for one in sorted(others))]
    return log_filter.unknown_steps(names, [step.name for step in steps]) or (
        log_filter.silent_steps(names, steps, selection.not_run, over=run.finished)
    )


def _follow(
    stored: StoredLogs, selection: LineSelection, say: Say, *, times: bool
) -> Iterator[list[LogLine]]:
    source = stored.source
    assert source.connection is not None
    # Sandboxes that have printed nothing so far are followed as well.
    others = (*source.earlier, *stored.lines.step_sandboxes)
    left = threading.Event()
    stream = LogStream(
        MODAL.log_streams(source.connection, source.run_id),
        source.sandbox,
        lines=stored.lines,
        known={**{sandbox: {} for sandbox in others}, **stored.sizes},
        arrivals=times,
        successor=lambda ended: _next_run_sandbox(source, ended, say, left),
    )
    try:
        for items in stream:
            yield selection.select(items)
    finally:
        left.set()
        stream.close()
    if stream.errors:
        error = stream.errors[0]
        kind: type[ModalrunError] = ConnectionLostError
        again = f"Try 'modalrun logs {source.run_id}' again."
        if isinstance(error, NotFoundError | AuthenticationError):
            kind, again = type(error), error.hint or f"'modalrun status {source.run_id}' shows it."
        raise kind(
            f"Not all of the output can be read: {error.problem}",
            hint=f"The run may continue. {again}",
        )
    source.use_zenml()
    run = while_connection_lost(lambda: ZENML.read_run(source.run_id), say)
    if run.status == "stopped":
        say("The run was stopped.")
    elif not run.finished and run.status != PAUSED:
        say(
            f"The sandbox of the run has ended, and ZenML says '{run.status}':"
            f" 'modalrun status {run.id}' shows more."
        )


def _next_run_sandbox(source: LogSource, ended: str, say: Say, left: threading.Event) -> str | None:
    """Wait for the run sandbox of a replacement driver; None if none comes."""
    assert source.connection is not None
    sandbox = source.connection.attach(ended, source.run_id)
    running = RunningSandbox(source.connection, sandbox, source.run_id, app_id="")
    end = running.wait()
    if not end.leaves_steps:
        return None
    source.use_zenml()
    if not may_be_resumed(ZENML.read_run(source.run_id), end):
        return None
    say(
        "The run's driver is gone; waiting for another one"
        f" ('modalrun resume {source.run_id}' starts it). Ctrl-C detaches."
    )
    run = resumption.wait_for_driver(
        source.run_id, source.connection, ended, lambda _: not left.wait(resumption.PAUSE)
    )
    if run is None or run.metadata is None:
        return None
    say("Another driver has taken over.")
    return run.metadata.sandbox_id
