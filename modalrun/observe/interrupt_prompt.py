"""Decide what Ctrl-C, SIGTERM and a closed terminal do to an attached run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Literal

from modalrun.util import interrupts

OnInterrupt = Literal["ask", "stop", "detach"]
"""What a signal does: ask on the terminal, stop the run by force, or detach."""

Decision = Literal["stop", "detach", "detach at once"]

ReadKeys = Callable[[Callable[[str], None]], AbstractContextManager[None]]
"""Passes each key to a function while the context is open, "" when the terminal is gone."""

QUESTION = "s: stop the run   d: detach   g: continue"

_ANSWERS: dict[str, Decision | Literal["continue"]] = {
    **dict.fromkeys("sS", "stop"),
    **dict.fromkeys(("d", "D", ""), "detach"),
    **dict.fromkeys("gG\n\r\x1b", "continue"),
}


def terminal_keys(listener: Callable[[str], None]) -> AbstractContextManager[None]:
    """Read keys from the terminal on stdin."""
    return interrupts.keys(sys.stdin.fileno(), listener)


class InterruptPrompt:
    """Turn signals, and keys that answer the question about one, into a decision.

    Attributes:
        number: The last signal.
    """

    def __init__(
        self,
        on_interrupt: OnInterrupt,
        *,
        show: Callable[[str | None], None],
        on_key: Callable[[str], None],
        read_keys: ReadKeys,
    ) -> None:
        """
        Args:
            on_interrupt: What a signal does.
            show: Shows the question; None removes it.
            on_key: Receives each key while the question is shown, from another thread.
        """
        self.number = 0
        self._on_interrupt = on_interrupt
        self._show = show
        self._on_key = on_key
        self._read_keys = read_keys
        self._asking = False
        self._open = ExitStack()

    def signal(self, number: int) -> Decision | None:
        """Decide what a signal does; None while the question about it is open."""
        self.number = number
        if self._asking:
            self.close()
            return "detach at once"
        if number == signal.SIGHUP:
            # The terminal is gone; that does not ask for the run's end.
            return "detach"
        if self._on_interrupt != "ask":
            return self._on_interrupt
        if number != signal.SIGINT:
            # No person sends SIGTERM who could answer, and it does not ask for the run's end.
            return "detach"
        self._asking = True
        self._show(QUESTION)
        self._open.callback(self._show, None)
        self._open.enter_context(self._read_keys(self._on_key))
        return None

    def key(self, key: str) -> Decision | None:
        """Take a key for the answer; None if it is none, or the answer is to continue."""
        answer = _ANSWERS.get(key)
        if answer is None or not self._asking:
            return None
        self.close()
        return None if answer == "continue" else answer

    def close(self) -> None:
        """Remove the question."""
        self._asking = False
        self._open.close()
