"""Run a helper process once for all workers of a test run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

SECONDS = 60.0


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a folder that the workers of pytest-xdist have in common; create it if needed."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextlib.contextmanager
def running(
    folder: Path, command: Callable[[Path], list[str]], env: Mapping[str, str]
) -> Iterator[Path]:
    """Provide the socket of a process, which the first worker starts.

    The process ends with its standard input, when the last worker closes it. Its standard streams
    are pipes.

    Args:
        folder: The `shared_folder` of the process.
        command: Returns its command; it gets the path at which to listen.
        env: Its whole environment.
    """
    place, users, output = (folder / name for name in ("socket", "users", "output"))
    with contextlib.ExitStack() as opened:

        def open_(path: Path, mode: int) -> int:
            descriptor = os.open(path, mode)
            opened.callback(os.close, descriptor)
            return descriptor

        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path in (users, output):
                if not path.exists():
                    os.mkfifo(path)
            # For both, so that the opening does not wait.
            open_(users, os.O_RDWR)
            printed = open_(output, os.O_RDWR | os.O_NONBLOCK)
            process = None
            if not _listens(place):
                place.unlink(missing_ok=True)
                with (
                    os.fdopen(os.open(users, os.O_RDONLY)) as stdin,
                    os.fdopen(os.open(output, os.O_WRONLY), "wb") as out,
                ):
                    process = subprocess.Popen(
                        command(place),
                        stdin=stdin,
                        stdout=out,
                        stderr=out,
                        env=env,
                        start_new_session=True,
                    )
            until = time.monotonic() + SECONDS
            while not _listens(place):
                ended = process and process.poll()
                assert ended is None and time.monotonic() < until, _read(printed)
                time.sleep(0.01)
        yield place
        text = _read(printed)
        assert process is None or process.poll() is None, (process.returncode, text)
        # The Modal SDK warns of the old Python.
        assert not text or b"Python 3.10 is EOL" in text, text


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.connect(str(place))
        return True
    return False


def _read(printed: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(printed, 65_536)
    return b""
