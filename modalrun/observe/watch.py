"""`modalrun status --watch`: a run as it changes, until it is over.

Nothing is asked again and again: the run sandbox's output says when something has changed (the
driver's events, or whose lines follow), and Modal says when the sandbox ends. Reading ZenML's
record every few seconds is only a net below that.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from modalrun.errors import ModalrunError
from modalrun.modal_api import RunningSandbox
from modalrun.observe import reaching, resumption
from modalrun.observe import status as runs
from modalrun.run import events, status
from modalrun.run.events import Event, StepEvent
from modalrun.run.records import RunRecord
from modalrun.run.status import RunStatus
from modalrun.util.line_assembler import LineAssembler

BACKSTOP = 5.0
"""Seconds after which ZenML's record is read although nothing was heard."""

SETTLE = 0.2
"""Seconds for which news are collected before the record is read once for all of them."""


def watch(
    run: RunRecord, show: Callable[[RunStatus], None], *, exit_wanted: bool = False
) -> RunStatus:
    """Look at a run until it is over.

    Args:
        run: The run.
        show: Gets the run as it is now, and each time that it may have changed.
        exit_wanted: Whether to find out the exit code of a run that failed, which takes Modal.

    Returns:
        The last view.

    Raises:
        NotFoundError, AuthenticationError, ConnectionLostError: ZenML no longer answers.
    """
    while True:
        view = _until_it_ends(run, show, exit_wanted=exit_wanted)
        if not resumption.may_follow(view.run, view.modal.exit_code):
            return view
        followed = _next_driver(view, show)
        if followed is None:
            view = runs.look(run, exit_wanted=exit_wanted)
            show(view)
            return view
        run = followed


def _next_driver(view: RunStatus, show: Callable[[RunStatus], None]) -> RunRecord | None:
    """Wait for another driver of a run that has lost its own, while its steps may go on."""
    assert view.run.metadata is not None
    gone = view.run.metadata.sandbox_id

    def pause(living: frozenset[str]) -> bool:
        seen = replace(view, modal=replace(view.modal, step_sandboxes=living))
        show(runs.reread(seen))
        time.sleep(resumption.PAUSE)
        return True

    try:
        connection = reaching.connection(view.run.id, view.run.metadata)
        return resumption.next_driver(view.run.id, connection, gone, pause)
    except ModalrunError:
        # The last look says what can't be checked.
        return None


def _until_it_ends(
    run: RunRecord, show: Callable[[RunStatus], None], *, exit_wanted: bool
) -> RunStatus:
    """Look at a run until it is over, or its run sandbox has ended."""
    view = runs.look(run, exit_wanted=exit_wanted)
    show(view)
    if view.over or view.state == status.LOST:
        return view
    news: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    if view.modal.sandbox == "running":
        threading.Thread(target=_listen, args=(view, news), daemon=True).start()
    latest: dict[str, StepEvent] = {}
    ended = False
    while not view.over and not ended:
        for event in _collect(news):
            ended = ended or event is None
            if isinstance(event, StepEvent):
                latest[event.step] = event
        view = status.with_events(runs.reread(view), latest)
        show(view)
    view = runs.look(run, exit_wanted=exit_wanted)
    show(view)
    return view


def _collect(news: queue.SimpleQueue[Event | None]) -> list[Event | None]:
    """Wait for news, and for those that come close behind."""
    found: list[Event | None] = []
    left = BACKSTOP
    with contextlib.suppress(queue.Empty):
        while left > 0:
            found.append(news.get(timeout=left))
            if found[-1] is None:
                # The end of the run is not to be waited for any longer.
                break
            if len(found) == 1:
                until = time.monotonic() + SETTLE
            left = until - time.monotonic()
    return found


def _listen(view: RunStatus, news: queue.SimpleQueue[Event | None]) -> None:
    """Pass on the run sandbox's events, and None when it has ended."""
    from modalrun.modal_api import lookup

    assemblers = {"stdout": LineAssembler(), "stderr": LineAssembler()}

    def hear(source: str, text: str) -> None:
        for line in assemblers[source].feed(text):
            event = events.read(line)
            if event is not None:
                news.put(event)

    # A run without facts has no sandbox that could be "running".
    assert view.run.metadata is not None
    try:
        connection = reaching.connection(view.run.id, view.run.metadata)
        sandbox: RunningSandbox = lookup.run_sandbox(connection, view.run.metadata)
        sandbox.watch(hear)
    except ModalrunError:
        # The net below still tells of ZenML's record; the last look says what can't be checked.
        return
    news.put(None)
