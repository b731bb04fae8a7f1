"""That a command is at work, while it imports what takes seconds."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modalrun.output.spinner import Phase


class Waiting:
    """A line on stderr that says what is being waited for, and goes away without a trace.

    Nothing where stdout or stderr is no terminal: a pager may draw on the one that is.
    """

    def __init__(self, text: str, *, quiet: bool = False) -> None:
        """
        Args:
            text: What is being waited for first.
            quiet: Whether a program reads the output, so that nothing is to be shown.
        """
        self._text = text
        self._on = not quiet and sys.stdout.isatty() and sys.stderr.isatty()
        self._phase: Phase | None = None

    def __enter__(self) -> Waiting:
        self.show(self._text)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def show(self, text: str) -> None:
        """Something else is being waited for."""
        if not self._on:
            return
        self.end()
        from modalrun.output.console import make_console
        from modalrun.output.spinner import Phase

        self._phase = self._phase or Phase()
        self._phase.show(make_console(stderr=True), text)

    def end(self) -> None:
        """Take it away; to be called before anything else is shown."""
        if self._phase is not None:
            self._phase.end()
