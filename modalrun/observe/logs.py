"""The lines of a run that is going on or over, from wherever they are to be had."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from modalrun.errors import ConnectionLostError, ModalrunError, NotFoundError
from modalrun.observe import log_filter, reaching, resumption
from modalrun.run.contract import EXIT_KILLED
from modalrun.run.events import MARK, StepEvent
from modalrun.run.log_lines import Choice, Item, LogLine, RunLines, Wanted
from modalrun.zenml_api import process

if TYPE_CHECKING:
    from modalrun.modal_api import Connection
    from modalrun.modal_api.log_history import History
    from modalrun.modal_api.stdio import Source
    from modalrun.run.records import RunRecord
    from modalrun.run.run_plan import Target

_LEEWAY = 120.0
"""Seconds before and after a run's own times in which its sandboxes may print."""


@dataclass(frozen=True)
class Request:
    """What is to be read.

    Attributes:
        wanted: Which lines.
        follow: Whether to wait for more until the run ends.
        tail: Only so many of the newest lines before those that come; None for all.
        times: Whether each line's time is needed, which live streams don't have.
    """

    wanted: Wanted
    follow: bool = False
    tail: int | None = None
    times: bool = False


@dataclass(frozen=True)
class Whereabouts:
    """Where a run's lines are.

    Attributes:
        run_id: ZenML's run id.
        sandbox: Modal's id of its run sandbox; of several, the last.
        connection: To where that is; None where Modal can't be asked, with the reason.
        running: Whether more can come.
        since: When it began, in seconds since the epoch; None where that is not known.
        until: When it ended; None where it has not, or that is not known.
        problem: Why there is no connection.
        use_zenml: Makes ZenML usable, if it was not needed so far.
        earlier: The run sandboxes that it had before it was resumed, oldest first.
    """

    run_id: str
    sandbox: str
    connection: Connection | None
    running: bool
    since: float | None = None
    until: float | None = None
    problem: str | None = None
    use_zenml: Callable[[], object] = lambda: None
    earlier: tuple[str, ...] = ()


def find(text: str | None, *, interactive: bool, zenml: ExitStack) -> Whereabouts:
    """Where the lines of the run that RUN means are.

    A run that goes on and whose whole id is given is found by its sandbox's tags, without ZenML,
    whose import takes twice as long as all else.

    Args:
        text: RUN as it was given.
        interactive: Whether a person sits at a terminal.
        zenml: Keeps ZenML usable, where it is needed, until it is closed.

    Raises:
        UsageError, NotFoundError: RUN is missing, or means no run or several.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    if text is not None and (run_id := _whole_id(text)) is not None:
        found = _find_running(run_id)
        if found is not None:
            return replace(found, use_zenml=functools.cache(lambda: _use_zenml(zenml)))
    from modalrun.observe import status as runs

    zenml.enter_context(process.zenml_session())
    return _whereabouts(runs.resolve(text, interactive=interactive))


def _use_zenml(zenml: ExitStack) -> None:
    zenml.enter_context(process.zenml_session())


def _whole_id(text: str) -> str | None:
    try:
        return str(UUID(text)) if len(text) >= 32 else None
    except ValueError:
        return None


def _find_running(run_id: str) -> Whereabouts | None:
    from modalrun.localmodal import launcher

    target: Target = "local"
    status = launcher.status()
    if status is None or not status["running"]:
        configuration = os.environ.get("MODAL_CONFIG_PATH") or "~/.modal.toml"
        if not (os.environ.get("MODAL_TOKEN_ID") or Path(configuration).expanduser().exists()):
            return None
        target = "modal"
    before = dict(os.environ)
    from modalrun.modal_api import Connection
    from modalrun.modal_api.lookup import running_run_sandbox

    try:
        connection = Connection(target)
        sandbox = running_run_sandbox(connection, run_id)
        if sandbox is not None:
            return Whereabouts(run_id, sandbox, connection, running=True)
    except ModalrunError:
        # ZenML may know better where it is.
        pass
    # A connection to the local server leads the SDK there for good.
    os.environ.clear()
    os.environ.update(before)
    return None


def _whereabouts(run: RunRecord) -> Whereabouts:
    if run.metadata is None:
        _refuse_cached(run)
        raise NotFoundError(
            f"The run {run.id} ({run.name}) has no sandbox that modalrun knows of.",
            hint="It was started by other means, or is only just being submitted.",
        )
    connection, problem = None, None
    try:
        connection = reaching.connection(run.id, run.metadata)
    except ModalrunError as error:
        if not run.finished:
            raise
        problem = error.problem
    return Whereabouts(
        run.id,
        run.metadata.sandbox_id,
        connection,
        running=not run.finished,
        since=_seconds(run.created, -_LEEWAY),
        until=_seconds(run.end, _LEEWAY),
        problem=problem,
        earlier=run.metadata.earlier_sandboxes,
    )


def _refuse_cached(run: RunRecord) -> None:
    if run.status != "completed":
        return
    from modalrun.zenml_api.records import queries as history

    _, steps = history.read(run.id)
    if all(step.status == "cached" for step in steps):
        raise NotFoundError(
            f"The run {run.id} ({run.name}) has printed nothing: all its steps are cached, so it"
            " needed no sandbox."
        )


def _seconds(moment: datetime | None, more: float) -> float | None:
    return moment.timestamp() + more if moment is not None else None


def read(
    place: Whereabouts, request: Request, say: Callable[[str], None]
) -> Iterator[list[LogLine]]:
    """The wanted lines of a run, in batches: by time where that is known, else as they come.

    Args:
        place: Where they are.
        request: Which are wanted.
        say: Is told where they come from, when that is not the usual place.

    Raises:
        ConnectionLostError: The connection is lost for good; the run may go on.
        NotFoundError: Neither Modal nor ZenML has any lines of it, or of a step that is asked for;
            or it has no such step.
    """
    lines = RunLines(place.sandbox, place.earlier)
    choice = Choice(request.wanted, lines)
    live = request.follow and place.running and place.connection is not None
    if live and request.wanted.steps:
        _check_names(place, request.wanted.steps)
    known: dict[str, dict[Source, int]] = {}
    if not live or request.times or request.tail is not None:
        newest: deque[LogLine] = deque(maxlen=request.tail)
        for items in _stored(place, lines, known, say, live=live):
            if request.tail is None:
                yield choice.of(items)
            else:
                newest.extend(choice.of(items))
        if not live:
            newest.extend(choice.rest())
        yield list(newest)
    if live:
        yield from _followed(place, lines, choice, known, say, times=request.times)
    yield choice.rest()
    if missing := [n for n in request.wanted.steps if not log_filter.matched(n, choice.spoken)]:
        raise _nothing_of(missing, place, choice)


def _check_names(place: Whereabouts, names: Sequence[str]) -> None:
    """Refuse at once what would be waited for in vain."""
    place.use_zenml()
    from modalrun.zenml_api.records import queries as history

    steps = history.step_names(place.run_id)
    if steps is not None and (error := log_filter.unknown(names, steps)):
        raise error


def _nothing_of(names: Sequence[str], place: Whereabouts, choice: Choice) -> NotFoundError:
    """Why there are no lines of the steps that some names mean."""
    place.use_zenml()
    from modalrun.zenml_api.records import queries as history

    run, steps = history.read(place.run_id)
    return log_filter.unknown(names, [step.name for step in steps]) or log_filter.silent(
        names, steps, choice.told, over=run.finished
    )


def _followed(
    place: Whereabouts,
    lines: RunLines,
    choice: Choice,
    known: dict[str, dict[Source, int]],
    say: Callable[[str], None],
    *,
    times: bool,
) -> Iterator[list[LogLine]]:
    from modalrun.observe.log_stream import LogStream

    assert place.connection is not None
    # Those that have printed nothing yet are to be followed as well.
    others = (*place.earlier, *lines.step_sandboxes)
    known = {**{sandbox: {} for sandbox in others}, **known}
    left = threading.Event()
    follower = LogStream(
        place.connection,
        place.sandbox,
        lines=lines,
        known=known,
        arrivals=times,
        successor=lambda gone: _successor(place, gone, say, left),
    )
    try:
        for items in follower:
            yield choice.of(items)
    finally:
        left.set()
        follower.close()
    if follower.errors:
        raise ConnectionLostError(
            f"Not all of the output can be read: {follower.errors[0].message}",
            hint=f"The run may go on. Try 'modalrun logs {place.run_id}' again.",
        )


def _successor(
    place: Whereabouts, gone: str, say: Callable[[str], None], left: threading.Event
) -> str | None:
    """The run sandbox of the driver that takes over from the one in `gone`, waited for."""
    from modalrun.modal_api import RunningSandbox

    assert place.connection is not None
    sandbox = place.connection.attach(gone)
    exit_code = RunningSandbox(place.connection, sandbox, app_id="").wait().exit_code
    if exit_code != EXIT_KILLED:
        return None
    place.use_zenml()
    from modalrun.zenml_api.records import queries as history

    run = history.by_id(place.run_id)
    if not resumption.may_follow(run, exit_code):
        return None
    say(
        "The run's driver is gone; waiting for another one"
        f" ('modalrun resume {place.run_id}' starts it). Ctrl-C leaves."
    )
    found = resumption.next_driver(
        place.run_id, place.connection, gone, lambda _: not left.wait(resumption.PAUSE)
    )
    if found is None or found.metadata is None:
        return None
    say("Another driver has taken over.")
    return found.metadata.sandbox_id


def _stored(
    place: Whereabouts,
    lines: RunLines,
    known: dict[str, dict[Source, int]],
    say: Callable[[str], None],
    *,
    live: bool,
) -> Iterator[list[Item]]:
    """What is stored; `known` gets how much of each stream that was."""
    problem = place.problem or "Modal has nothing stored of it"
    if place.connection is not None:
        from modalrun.modal_api.log_history import History

        ahead = RunLines(place.sandbox, place.earlier)
        history = History(place.connection, lambda box, text: _named(ahead, lines, box, text))
        sandboxes = (*place.earlier, place.sandbox)
        for batch in history.read(sandboxes, place.since, place.until):
            yield [
                item
                for piece in batch
                for item in lines.feed(piece.sandbox, piece.source, piece.text, piece.time)
            ]
        for sandbox, sizes in history.sizes.items():
            known[sandbox] = {"stdout": sizes.get("stdout", 0), "stderr": sizes.get("stderr", 0)}
        if not live:
            yield lines.end_all()
        yield _unread(history, place, lines)
        if history.sizes or live or place.running:
            return
    yield from _from_zenml(place, problem, say)


def _named(ahead: RunLines, lines: RunLines, sandbox: str, text: str) -> list[tuple[str, float]]:
    """The step sandboxes that a stored piece of a run sandbox's output names."""
    if sandbox not in ahead.run_sandboxes or MARK not in text:
        return []
    found = []
    for item in ahead.feed(sandbox, "stdout", text):
        if isinstance(item, StepEvent) and item.sandbox:
            # By its time a step's first line may stand before the word of the driver on it.
            lines.name(item.sandbox, item.step, item.attempt)
            found.append((item.sandbox, (item.began or item.at) - _LEEWAY))
    return found


def _unread(history: History, place: Whereabouts, lines: RunLines) -> list[Item]:
    """A line for each sandbox whose output can't be read, for those who would miss it."""
    return [
        line
        for sandbox, error in history.errors.items()
        if history.sizes
        for line in lines.note(sandbox, "stdout", f"[modalrun: not readable any more: {error}]")
    ]


def _from_zenml(
    place: Whereabouts, problem: str, say: Callable[[str], None]
) -> Iterator[list[Item]]:
    from modalrun.zenml_api.records.step_logs import stored_lines

    say(f"{problem}; these are the step logs that ZenML has stored")
    some = False
    try:
        for line in stored_lines(place.run_id):
            some = True
            yield [line]
    except ModalrunError:
        raise
    except Exception as error:
        raise NotFoundError(
            f"ZenML's stored logs of the run {place.run_id} can't be read: {error}"
        ) from error
    if not some:
        raise NotFoundError(
            f"There are no lines of the run {place.run_id}: {problem}, and ZenML has stored none."
        )
