"""Watch the status of a run until it is over.

Nothing polls Modal: an event in the run sandbox's output announces each change, and Modal reports
the sandbox's end. ZenML's record is read every few seconds only in case an event is missed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue

from modalrun.errors import ModalrunError
from modalrun.modal_api.gateway import ModalGateway
from modalrun.observe import resumption
from modalrun.observe.status import connect, read_status, refresh
from modalrun.run.events import Event, StepEvent
from modalrun.run.log_lines import LogLine, RunLines
from modalrun.run.outcome import LOST
from modalrun.run.records import RunRecord
from modalrun.run.status import RunStatus, may_be_resumed, with_events

BACKSTOP = 5.0
"""Seconds after which ZenML's record is read although no event came."""

SETTLE = 0.2
"""Seconds for which events are collected before the record is read once for all of them."""

Show = Callable[[RunStatus], None]


def watch(run: RunRecord, show: Show, *, with_exit_code: bool = False) -> RunStatus:
    """Show the status of a run at each change until the run is over.

    Args:
        show: Receives the status now and whenever it may have changed.
        with_exit_code: Whether to find out the exit code of a failed run, which takes Modal.

    Returns:
        The last status.

    Raises:
        NotFoundError, AuthenticationError, ConnectionLostError: ZenML no longer answers.
    """
    watcher = _Watcher(show, with_exit_code)
    while True:
        status = watcher.until_sandbox_ends(run.id)
        if not may_be_resumed(status.run, status.modal.end):
            return status
        resumed = watcher.wait_for_driver(status)
        if resumed is None:
            return watcher.read(run.id)
        run = resumed


class _Watcher:
    def __init__(self, show: Show, with_exit_code: bool) -> None:
        self._show = show
        self._with_exit_code = with_exit_code

    def read(self, run_id: str) -> RunStatus:
        """Read and show the status."""
        status = read_status(run_id, with_exit_code=self._with_exit_code)
        self._show(status)
        return status

    def until_sandbox_ends(self, run_id: str) -> RunStatus:
        """Watch a run until it is over or its run sandbox has ended."""
        status = self.read(run_id)
        if status.over or status.state == LOST:
            return status
        news: SimpleQueue[Event | None] = SimpleQueue()
        if status.modal.sandbox == "running":
            threading.Thread(target=self._listen, args=(status.run, news), daemon=True).start()
        latest: dict[str, StepEvent] = {}
        ended = False
        while not status.over and not ended:
            for event in _collect(news):
                ended = ended or event is None
                if isinstance(event, StepEvent):
                    latest[event.step] = event
            status = with_events(refresh(status), latest)
            self._show(status)
        return self.read(run_id)

    def wait_for_driver(self, status: RunStatus) -> RunRecord | None:
        """Show the running steps of a run without a driver until another driver takes over."""
        run = status.run
        assert run.metadata is not None

        def pause(running: frozenset[str]) -> bool:
            modal = replace(status.modal, step_sandboxes=running)
            self._show(refresh(replace(status, modal=modal)))
            time.sleep(resumption.PAUSE)
            return True

        try:
            connection = connect(run.id, run.metadata)
            return resumption.wait_for_driver(run.id, connection, run.metadata.sandbox_id, pause)
        except ModalrunError:
            # The last status notes what can't be checked.
            return None

    def _listen(self, run: RunRecord, news: SimpleQueue[Event | None]) -> None:
        """Queue the run sandbox's events, and None when it has ended."""
        assert run.metadata is not None
        sandbox = run.metadata.sandbox_id
        lines = RunLines(sandbox)

        def receive(source: str, text: str) -> None:
            for item in lines.feed(sandbox, source, text):
                if not isinstance(item, LogLine):
                    news.put(item)

        try:
            connection = connect(run.id, run.metadata)
            ModalGateway().run_sandbox(connection, run.id, run.metadata).watch(receive)
        except ModalrunError:
            # ZenML's record is still read; the last status notes what can't be checked.
            return
        news.put(None)


def _collect(news: SimpleQueue[Event | None]) -> list[Event | None]:
    """Wait for an event, and for those that follow closely."""
    found: list[Event | None] = []
    left = BACKSTOP
    with contextlib.suppress(Empty):
        while left > 0:
            found.append(news.get(timeout=left))
            if found[-1] is None:
                break
            if len(found) == 1:
                until = time.monotonic() + SETTLE
            left = until - time.monotonic()
    return found
