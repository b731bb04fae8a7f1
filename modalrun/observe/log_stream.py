"""Merge the live output of all sandboxes of a run to one resumable stream of lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from modalrun.errors import ModalrunError
from modalrun.modal_api.client import ForeignSandboxError
from modalrun.modal_api.log_buffer import OutputChunk, StreamEnd, StreamName
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import Item, RunLines

KnownBytes = Mapping[str, Mapping[StreamName, int]]
"""Bytes of each stream that were read before, by the sandbox's id."""


class LogStream:
    """The lines of a run as they are printed, from all its sandboxes, each once.

    New step sandboxes join when an event on the run sandbox's stdout names them. Iterate over it
    once, in any thread; `close` may be called from any other.

    Attributes:
        lines: Assembles the lines.
        errors: Why parts of the output can't be read.
    """

    def __init__(
        self,
        streams: OutputStreams,
        run_sandbox: str,
        *,
        lines: RunLines | None = None,
        known: KnownBytes | None = None,
        arrivals: bool = False,
        ended: Collection[str] = (),
        successor: Callable[[str], str | None] | None = None,
    ) -> None:
        """
        Args:
            streams: New streams of Modal.
            run_sandbox: Modal's id of the run sandbox, running or finished.
            lines: What has assembled the earlier part, if that was read before.
            known: How much of each stream that was.
            arrivals: Whether lines get the time of their arrival.
            ended: The steps that had ended before; their sandboxes are left out.
            successor: Waits for the next run sandbox after one has ended and returns its id, or
                None if none comes; called in its own thread.
        """
        self.lines = lines or RunLines(run_sandbox)
        self.errors: list[ModalrunError] = []
        self._known = known or {}
        self._arrivals = arrivals
        self._ended = ended
        self._successor = successor
        self._streams = streams
        self._added: set[str] = set()
        for sandbox in (run_sandbox, *self._known):
            self._add(sandbox)

    def __iter__(self) -> Iterator[list[Item]]:
        """Yield batches of lines and events until all sandboxes have ended.

        A stream that is lost for good ends with a line of source "system" and an error in
        `errors`; the run may continue.
        """
        for batch in self._streams:
            items = [item for chunk in batch for item in self._items(chunk)]
            for item in items:
                if isinstance(item, StepEvent) and item.sandbox and item.step not in self._ended:
                    self._add(item.sandbox)
            if items:
                yield items

    def close(self) -> None:
        """Stop reading; the run continues."""
        self._streams.close()

    def _add(self, sandbox: str) -> None:
        if sandbox not in self._added:
            self._added.add(sandbox)
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
        if isinstance(chunk.error, ForeignSandboxError):
            if source == "stdout":
                items += self.lines.note(sandbox, source, not_shown(chunk.error))
        elif chunk.error is not None:
            self.errors.append(chunk.error)
            text = f"[modalrun: the rest of {source} can't be read: {chunk.error.problem}]"
            items += self.lines.note(sandbox, source, text)
        elif self._successor and (sandbox, source) == (self.lines.run_sandbox, "stdout"):
            self._streams.hold()
            args = (self._successor, sandbox)
            threading.Thread(target=self._join, args=args, name="successor", daemon=True).start()
        return items

    def _join(self, successor: Callable[[str], str | None], ended: str) -> None:
        """Read on in the run sandbox of the next driver."""
        try:
            if (found := successor(ended)) is not None:
                self.lines.add_run_sandbox(found)
                self._add(found)
        except ModalrunError as error:
            self.errors.append(error)
        finally:
            self._streams.release()


def not_shown(error: ForeignSandboxError) -> str:
    """Return a note in place of the output of a sandbox that is another run's."""
    return f"[modalrun: {error.problem} Its output is not shown.]"


def _gap_note(chunk: OutputChunk) -> str | None:
    """Return a note where Modal no longer has a part of a stream."""
    if chunk.missing:
        return (
            f"[modalrun: {chunk.missing:,} bytes of {chunk.source} are no longer in Modal's live"
            " stream; what follows comes from its history]"
        )
    if chunk.lost:
        return f"[modalrun: {chunk.lost:,} bytes of {chunk.source} are lost]"
    return None
