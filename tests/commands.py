"""Start processes in tests, read their output live and wait for their end."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from forking import Forked
from servers import sharing

DEADLINE = 90.0 * sharing.PATIENCE
"""Seconds after which something that is waited for counts as lost; never how long a test takes."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


class Stream:
    """What a process writes to one descriptor, as it comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._news = threading.Condition()
        self._ended = False
        self.data = bytearray()
        self.arrivals: list[tuple[float, bytes]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """Everything so far."""
        return self.data.decode("utf-8", "backslashreplace")

    def wait_for(self, text: str, seconds: float = DEADLINE) -> str:
        """Wait until a line with `text` is complete; returns that line."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                complete = self.text.splitlines(keepends=True)
                for line in complete:
                    if text in line and line.endswith("\n"):
                        return line.rstrip("\r\n")
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "the stream ended" if self._ended else f"{seconds:g} s passed"
                    raise AssertionError(f"{why} without {text!r} in:\n{self.text}")
                self._news.wait(left)

    def finish(self) -> None:
        """Wait until the other end is closed."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "a process keeps the output open"

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._descriptor, 65_536)
            except OSError:
                # The end of a pseudo-terminal whose other side is closed.
                data = b""
            now = time.time()
            with self._news:
                if data:
                    self.data += data
                    self.arrivals.append((now, data))
                else:
                    self._ended = True
                self._news.notify_all()
            if not data:
                os.close(self._descriptor)
                return


class Command:
    """A running process and its output so far. On a terminal, stderr is stdout."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | Forked,
        stdout: Stream,
        stderr: Stream,
        keyboard: int | None = None,
    ) -> None:
        self.process = process
        self.stdout = stdout
        self.stderr = stderr
        self._keyboard = keyboard

    def type(self, text: str) -> None:
        """Press keys, where the process has a terminal."""
        assert self._keyboard is not None
        os.write(self._keyboard, text.encode())

    def resize(self, lines: int, columns: int) -> None:
        """Change the size of its terminal, which is not its controlling one."""
        assert self._keyboard is not None
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, size)
        self.signal(signal.SIGWINCH)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self, seconds: float = DEADLINE) -> Result:
        """Wait for the end of the process and of its output."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {seconds:g} s:\n{self.stdout.text}\n{self.stderr.text}"
            ) from None
        self.stdout.finish()
        self.stderr.finish()
        return Result(code, self.stdout.text, self.stderr.text)


class Gate:
    """A named pipe: a step that opens it waits until the test opens it too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        """Wait until the step has arrived, then let it continue."""
        with self.path.open("wb"):
            pass


def after_its_reader_left(code: str) -> Result:
    """Run Python code whose standard output has no reader; return its end.

    Args:
        code: It has to read a line before it writes: by then the reader has left.
    """
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.flush()
        said = process.stderr.read()
    return Result(process.returncode, "", said)
