"""Write to stdout and stderr: everything that modalrun prints comes through here.

What others print in a command's process (ZenML's log, warnings, a pipeline's own module) does so
too, as the streams are guarded meanwhile. Nothing that is printed controls a terminal or CI.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

from modalrun.output.terminal.sanitize import Pieces, json_safe, plain
from modalrun.output.terminal.wrapping import wrapped


def out(text: str, *, fit: bool = False) -> None:
    """Write a text of one or more lines to stdout.

    Args:
        fit: Whether it is for people alone: on a terminal it is broken between words.
    """
    write_rendered(sys.stdout, f"{_fitted(text, sys.stdout) if fit else plain(text)}\n")


def err(text: str) -> None:
    """Write a text of one or more lines to stderr; on a terminal, broken between words."""
    write_rendered(sys.stderr, f"{fitted_to_stderr(text)}\n")


def fitted_to_stderr(text: str) -> str:
    """Return a text as `err` writes it: for a question, too."""
    return _fitted(text, sys.stderr)


def _fitted(text: str, stream: IO[str]) -> str:
    width = shutil.get_terminal_size().columns if stream.isatty() else None
    return "\n".join(part for line in plain(text).split("\n") for part in wrapped(line, width))


def out_json(text: str) -> None:
    """Write a JSON text to stdout; its data stay as they are."""
    write_rendered(sys.stdout, f"{json_safe(text)}\n")


def workflow_command(name: str, message: str, **properties: str) -> str:
    """Render a workflow command of GitHub, with everything escaped that could end it.

    Args:
        name: What the runner is asked to do.
        properties: What the message is about: its title, a file and a line.
    """
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name}{' ' * bool(given)}{given}::{_escaped(plain(message))}\n"


def _property(text: str) -> str:
    return _escaped(plain(text)).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\n", "%0A")


def write_rendered(stream: IO[str], text: str) -> None:
    """Write a text in which nothing can do harm: `log_text`, `github` and Rich have rendered it."""
    target = unguarded(stream)
    target.write(text)
    target.flush()


def write_pieces(parts: Iterable[str]) -> None:
    """Write a stream of text to stdout, whose parts may begin and end anywhere."""
    target = unguarded(sys.stdout)
    stream = GuardedStream(target)
    for part in parts:
        stream.write(part)
        target.flush()


def pass_on(stream: IO[str], data: bytes) -> None:
    """Write the bytes of a command that the user runs in a sandbox, as they are."""
    target = unguarded(stream)
    target.flush()
    cast(TextIO, target).buffer.write(data)
    cast(TextIO, target).buffer.flush()


class GuardedStream:
    """Neutralise what is written to a text stream. Everything else is that stream's."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self._is_terminal = stream.isatty()
        self._pieces = Pieces(colours=self._is_terminal)

    def write(self, text: str) -> int:
        """Write a piece of text, which may begin and end anywhere; return its length."""
        # On a terminal a carriage return redraws a progress bar; to CI it is the end of a line.
        mark = "\r" if self._is_terminal else "\n"
        for number, part in enumerate(text.replace("\r\n", "\n").split("\r")):
            if number:
                self.stream.write(mark)
                self._pieces.end_line()
            self.stream.write(self._pieces.clean(part))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several pieces."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unguarded(stream: IO[str]) -> IO[str]:
    """Return the stream itself, for what has been rendered."""
    return stream.stream if isinstance(stream, GuardedStream) else stream


@contextmanager
def guarded() -> Iterator[None]:
    """Guard stdout and stderr of this process."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or pipe that can't show a character must not end the output.
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = (cast(TextIO, GuardedStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
