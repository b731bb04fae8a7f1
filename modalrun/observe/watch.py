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
from modalrun.modal_api.gateway import MODAL
from modalrun.observe import resumption
from modalrun.observe.log_stream import LogStream
from modalrun.observe.status import connect, read_status, refresh
from modalrun.run.events import Event, Redraw, StepEvent
from modalrun.run.log_lines import LogLine
from modalrun.run.outcome import LOST
from modalrun.run.records import RunRecord
from modalrun.run.status import NOT_ASKED, RunStatus, may_be_resumed, with_events

BACKSTOP = 5.0
"""Seconds after which ZenML's record is read although no event came."""

SETTLE = 0.2
"""Seconds for which events are collected before the record is read once for all of them."""

Show = Callable[[RunStatus], None]
_News = Event | None


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
        if may_be_resumed(status.run, status.modal.end):
            if watcher.wait_for_driver(status) is None:
                return watcher.read(run.id)
        elif status.over or status.state == LOST:
            return status


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
        """Watch a run until it is over, its run sandbox has ended, or it has its first one."""
        status = self.read(run_id)
        if status.over or status.state == LOST:
            return status
        news: SimpleQueue[_News] = SimpleQueue()
        if status.modal.sandbox == "running":
            threading.Thread(target=self._listen, args=(status, news), daemon=True).start()
        latest: dict[str, StepEvent] = {}
        bars: dict[str, str] = {}
        ended = False
        next_read = 0.0
        while not status.over and not ended:
            changed = False
            for event in _collect(news):
                ended = ended or event is None
                changed = changed or not isinstance(event, Redraw)
                if isinstance(event, StepEvent):
                    latest[event.step] = event
                elif isinstance(event, Redraw):
                    bars[event.step] = event.text
            if changed or time.monotonic() > next_read:
                unknown = status.modal.sandbox == "unknown"
                again = read_status(run_id) if unknown else refresh(status)
                status = with_events(again, latest)
                next_read = time.monotonic() + BACKSTOP
                # Modal answers again, or the run's sandbox has been recorded since.
                ended = ended or (unknown and status.modal.sandbox != "unknown")
                ended = ended or (status.modal is NOT_ASKED and status.run.metadata is not None)
            running = {step.name for step in status.steps if step.status == "running"}
            shown = {step: text for step, text in bars.items() if text and step in running}
            status = replace(status, bars=shown)
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

    def _listen(self, status: RunStatus, news: SimpleQueue[_News]) -> None:
        """Queue the run's events and progress bars, and None when its sandbox has ended."""
        run, metadata = status.run, status.run.metadata
        assert metadata is not None
        try:
            connection = connect(run.id, metadata)
            sandbox = MODAL.run_sandbox(connection, run.id, metadata)

            def end(_: str) -> None:
                sandbox.wait()
                news.put(None)

            stream = LogStream(
                MODAL.log_streams(connection, run.id),
                sandbox.id,
                ended=[step.name for step in status.steps if step.finished],
                successor=end,
            )
            for items in stream:
                for item in items:
                    if not isinstance(item, LogLine):
                        news.put(item)
        except ModalrunError:
            # ZenML's record is still read; the last status notes what can't be checked.
            return


def _collect(news: SimpleQueue[_News]) -> list[_News]:
    """Wait for an event, and for those that follow closely."""
    found: list[_News] = []
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
