"""Show on a terminal that a command is at work, and on what."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text


class Spinner:
    """A line on a terminal that names what a command waits for, and goes away without a trace.

    Attributes:
        status: What is shown now.
    """

    def __init__(
        self, text: str = "", *, quiet: bool = False, console: Console | None = None
    ) -> None:
        """
        Args:
            text: What is shown as soon as this is entered.
            quiet: Whether a program reads the output, so that nothing may be shown.
            console: Where to show it. Without one it is stderr, and nothing is shown unless stdout
                is a terminal or a file: behind a pipe a pager may draw on the terminal.
        """
        self.status: Status | None = None
        self._text = text
        self._console = console
        self._quiet = quiet or (
            console is None and not (sys.stderr.isatty() and (sys.stdout.isatty() or _to_file()))
        )

    def __enter__(self) -> Spinner:
        self.show(self._text)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def show(self, text: str | Callable[[], str]) -> None:
        """Show another text; what a function returns is shown as it changes."""
        self.end()
        if self._quiet:
            return
        from rich.text import Text

        from modalrun.output.terminal.console import is_live, make_console
        from modalrun.output.terminal.sanitize import harmless

        self._console = self._console or make_console(stderr=True)
        if is_live(self._console):

            def shown(text: str) -> Text:
                return Text(f"{harmless(text, colours=False)} ...")

            changing = _Changing(lambda: shown(text())) if callable(text) else shown(text)
            self.status = self._console.status(changing)
            self.status.start()

    def end(self) -> None:
        """Remove the line. Call this before anything else is shown."""
        if self.status is not None:
            self.status.stop()
            self.status = None


def _to_file() -> bool:
    """Return whether stdout is a file on disk."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        # It is closed, or replaced by what has no descriptor.
        return False


class _Changing:
    """A text that Rich asks for each time that it draws."""

    def __init__(self, text: Callable[[], Text]) -> None:
        self._text = text

    def __rich__(self) -> Text:
        return self._text()
