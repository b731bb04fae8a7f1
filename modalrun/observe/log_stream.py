"""One merged, resumable stream of lines from all sandboxes of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from modalrun.errors import ModalrunError
from modalrun.modal_api.log_buffer import OutputChunk, StreamEnd, StreamName
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.run.events import FINAL, StepEvent
from modalrun.run.log_lines import Item, RunLines

if TYPE_CHECKING:
    from modalrun.modal_api import Connection

Known = Mapping[str, Mapping[StreamName, int]]
"""Bytes of each stream that are known already, by the sandbox's id."""


class LogStream:
    """The lines of a run as they are printed, from all its sandboxes, each once.

    Sandboxes that start meanwhile join by themselves: the driver says so on the run sandbox's
    stdout. Iterate over it in any thread, once; `close` may be called from any other.
    """

    def __init__(
        self,
        connection: Connection,
        run_sandbox: str,
        *,
        lines: RunLines | None = None,
        known: Known | None = None,
        arrivals: bool = False,
        since: float = 0.0,
        successor: Callable[[str], str | None] | None = None,
    ) -> None:
        """
        Args:
            connection: Where the run is.
            run_sandbox: Modal's id of its run sandbox, running or finished.
            lines: What has put together the earlier part, where that is known already.
            known: How much of each stream that was.
            arrivals: Whether lines get the time of their arrival, for want of another.
            since: Sandboxes of steps that had ended before are left out; seconds since the epoch.
            successor: Waits for the run sandbox that takes the place of one that has ended, and
                returns its id, or None where none does; called in a thread of its own.
        """
        self.lines = lines or RunLines(run_sandbox)
        self.errors: list[ModalrunError] = []
        self._known = known or {}
        self._arrivals = arrivals
        self._since = since
        self._successor = successor
        self._streams = OutputStreams(connection)
        self._seen: set[str] = set()
        for sandbox in (run_sandbox, *self._known):
            self._add(sandbox)

    def _wait_for_successor(self, gone: str) -> None:
        """Read on in the run sandbox of the next driver, where one comes."""
        wait = self._successor
        if wait is None:
            return
        self._streams.hold()

        def join() -> None:
            try:
                if (found := wait(gone)) is not None:
                    self.lines.succeed(found)
                    self._add(found)
            except ModalrunError as error:
                self.errors.append(error)
            finally:
                self._streams.release()

        threading.Thread(target=join, name="successor", daemon=True).start()

    def __iter__(self) -> Iterator[list[Item]]:
        """Lines, and the events between them, in batches, until all sandboxes have ended.

        A stream that is lost for good ends with a line of source "system", and its error stands
        in `errors`: the run may go on then.
        """
        for batch in self._streams:
            items = [item for chunk in batch for item in self._items(chunk)]
            for item in items:
                if isinstance(item, StepEvent) and item.sandbox:
                    if item.state in FINAL and item.at < self._since:
                        continue
                    self._add(item.sandbox)
            if items:
                yield items

    def close(self) -> None:
        """Read nothing more; the run goes on."""
        self._streams.close()

    def _add(self, sandbox: str) -> None:
        if sandbox not in self._seen:
            self._seen.add(sandbox)
            self._streams.add(sandbox, skip=self._known.get(sandbox))

    def _items(self, chunk: OutputChunk | StreamEnd) -> list[Item]:
        sandbox, source = chunk.sandbox, chunk.source
        if isinstance(chunk, OutputChunk):
            moment = time.time() if self._arrivals else chunk.time
            items = self.lines.feed(sandbox, source, chunk.text, moment)
            if note := _gap_note(chunk):
                items += self.lines.note(sandbox, source, note)
            return items
        items = self.lines.end(sandbox, source)
        if chunk.error is not None:
            self.errors.append(chunk.error)
            text = f"[modalrun: the rest of {source} can't be read: {chunk.error.message}]"
            items += self.lines.note(sandbox, source, text)
        elif sandbox == self.lines.run_sandbox and source == "stdout":
            self._wait_for_successor(sandbox)
        return items


def _gap_note(chunk: OutputChunk) -> str | None:
    """What is said where Modal no longer holds a part of a stream."""
    if chunk.missing:
        return (
            f"[modalrun: {chunk.missing:,} bytes of {chunk.source} are no longer in Modal's live"
            " stream; what follows comes from its history]"
        )
    if chunk.lost:
        return f"[modalrun: {chunk.lost:,} bytes of {chunk.source} are lost]"
    return None
