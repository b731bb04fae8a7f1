"""Read the stored log lines of a run from Modal's history, or the logs that ZenML keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

from modalrun.errors import ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api.client import ForeignSandboxError
from modalrun.modal_api.gateway import MODAL
from modalrun.modal_api.log_buffer import STREAMS, StreamName
from modalrun.modal_api.log_history import History
from modalrun.observe.log_source import LogSource
from modalrun.observe.log_stream import not_shown
from modalrun.run.event_proof import MARK
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import Item, LogLine, RunLines
from modalrun.util.retry import while_connection_lost

_BATCH = 500
"""Lines of ZenML's logs that are read at a time."""

_RECENT_SECONDS = 60.0
"""How long after its end the stored lines of a run may be incomplete."""


class StoredLogs:
    """The stored lines of one run.

    Attributes:
        lines: Assembles the lines.
        sizes: How many bytes of each stream were read, by the sandbox's id.
    """

    def __init__(self, source: LogSource, lines: RunLines) -> None:
        self.source = source
        self.lines = lines
        self.sizes: dict[str, dict[StreamName, int]] = {}
        self._ahead = RunLines(source.sandbox, source.earlier)

    def read(self, say: Callable[[str], None], *, live: bool) -> Iterator[list[Item]]:
        """Read all that is stored, in batches in order of time.

        Args:
            say: Receives a sentence when the lines come from ZenML.
            live: Whether the live stream follows, so that unfinished lines wait for it.

        Raises:
            NotFoundError: Neither Modal nor ZenML has lines of the run.
            ConnectionLostError: Modal can't be reached, not even after a minute.
        """
        source = self.source
        problem = source.problem or "Modal has nothing stored of it"
        is_lost = False
        if source.connection is not None:
            history = MODAL.log_history(source.connection, source.run_id, self._named_sandboxes)
            settle = not source.running and _is_recent(source.until)
            for batch in history.read(
                source.run_sandboxes, source.since, source.until, settle=settle
            ):
                yield [
                    item
                    for chunk in batch
                    for item in self.lines.feed(chunk.sandbox, chunk.source, chunk.text, chunk.time)
                ]
            for sandbox, sizes in history.sizes.items():
                self.sizes[sandbox] = {name: sizes.get(name, 0) for name in STREAMS}
            if not live:
                yield self.lines.end_all()
            lost = [e for e in history.errors.values() if isinstance(e, ConnectionLostError)]
            unknown = _is_unknown(history.errors.get(source.sandbox))
            if lost and (history.sizes or live):
                raise self._incomplete(lost[0].message)
            if lost:
                problem, is_lost = lost[0].message, True
            elif unknown:
                problem = f"Modal knows no sandbox {source.sandbox} here"
            yield from self._notes(history, live=live)
            if history.sizes or live or (source.running and not (lost or unknown)):
                return
        reader = _StoredLines(source.run_id)
        while lines := while_connection_lost(reader.take, say):
            if reader.taken == len(lines):
                say(f"{problem}; these are the logs that ZenML has stored")
            yield lines
        if not reader.taken:
            if is_lost:
                raise self._incomplete(problem)
            raise NotFoundError(
                f"There are no lines of the run {source.run_id}: {problem}, and ZenML stores none."
            )

    def _notes(self, history: History, *, live: bool) -> Iterator[list[Item]]:
        """Yield notes on the sandboxes whose output is not shown."""
        for sandbox, error in history.errors.items():
            if isinstance(error, ForeignSandboxError):
                # The live stream has a note of its own.
                if not live:
                    yield self.lines.note(sandbox, "stdout", not_shown(error))
            elif history.sizes:
                # Where nothing at all can be read, ZenML's logs replace it.
                text = f"[modalrun: not readable any more: {error}]"
                yield self.lines.note(sandbox, "stdout", text)

    def _incomplete(self, problem: str) -> ConnectionLostError:
        return ConnectionLostError(
            f"Not all of the output can be read: {problem}",
            hint=f"Try 'modalrun logs {self.source.run_id}' again.",
        )

    def _named_sandboxes(self, sandbox: str, text: str) -> list[tuple[str, float]]:
        """Return the step sandboxes that a run sandbox's output names, with their first moment."""
        if sandbox not in self._ahead.run_sandboxes or MARK not in text:
            return []
        found = []
        for item in self._ahead.feed(sandbox, "stdout", text):
            if isinstance(item, StepEvent) and item.sandbox:
                # In order of time, a step's first line may precede the event about its sandbox.
                self.lines.assign(item.sandbox, item.step, item.attempt, item.restarts)
                found.append((item.sandbox, item.began or item.at))
        return found


def _is_unknown(error: Exception | None) -> bool:
    """Return whether Modal has no such sandbox: it is in another workspace, or on another machine.

    Args:
        error: Why its history can't be read.
    """
    return isinstance(error, NotFoundError) and not isinstance(error, ForeignSandboxError)


def _is_recent(end: float | None) -> bool:
    """Return whether Modal may not have stored all lines of a run that ended then."""
    return end is None or time.time() - end < _RECENT_SECONDS


class _StoredLines:
    """The lines that ZenML has stored of a run; after a failure it continues where it was.

    Attributes:
        taken: How many lines have been read.
    """

    def __init__(self, run_id: str) -> None:
        self.taken = 0
        self._run_id = run_id
        self._lines: Iterator[LogLine] | None = None

    def take(self) -> list[Item]:
        """Return the next lines; none at the end. Raises ModalrunError."""
        from modalrun.zenml_api.records.step_logs import stored_lines

        try:
            if self._lines is None:
                self._lines = islice(stored_lines(self._run_id), self.taken, None)
            batch = list(islice(self._lines, _BATCH))
        except ModalrunError:
            self._lines = None
            raise
        except Exception as error:
            raise NotFoundError(
                f"ZenML's stored logs of the run {self._run_id} can't be read: {error}"
            ) from error
        self.taken += len(batch)
        return list(batch)
