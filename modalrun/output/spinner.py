"""What is being waited for: a line on a terminal that goes away without a trace."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status
from rich.text import Text


class Phase:
    """Shows one thing at a time that is being waited for; elsewhere than on a terminal nothing.

    Attributes:
        status: What is shown now.
    """

    def __init__(self) -> None:
        self.status: Status | None = None

    def show(self, console: Console, text: str) -> None:
        """Show what is being waited for, in place of what was."""
        self.end()
        if is_live(console):
            self.status = console.status(Text(f"{text} ..."))
            self.status.start()

    def end(self) -> None:
        """Take it away; to be called before anything else is shown."""
        if self.status is not None:
            self.status.stop()
            self.status = None


def is_live(console: Console) -> bool:
    """Whether what is shown can be redrawn: FORCE_COLOR makes Rich take a file for a terminal."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
