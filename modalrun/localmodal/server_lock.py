"""The locks of a state folder: see whether a server runs, and end one that does not answer.

Two locks prevent races. A server holds the server lock while it lives. A command holds the start
lock while it looks for or starts a server, and so does a server that ends because it is idle.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator

from modalrun.errors import InternalError
from modalrun.localmodal import peers
from modalrun.localmodal.server_info import connection
from modalrun.localmodal.storage.paths import StateDir

_KILL_LIMIT = 20.0


def hold(state: StateDir) -> bool:
    """Take the server lock for the life of this process, and write its pid into it.

    Returns:
        Whether it was free.
    """
    descriptor = os.open(state.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if is_locked(state):
                os.close(descriptor)
                return False
            # Somebody has just looked at it (`is_locked`).
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return True


def is_locked(state: StateDir) -> bool:
    """Return whether a server holds the server lock."""
    try:
        descriptor = os.open(state.server_lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def start_lock(state: StateDir) -> Iterator[None]:
    """Hold the start lock."""
    descriptor = os.open(state.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def kill_server(state: StateDir) -> None:
    """Kill a server and wait for its end. Raises InternalError if it does not end."""
    # Not the pid of a file: it may be another process's by now, or a process's elsewhere.
    with contextlib.suppress(OSError), connection(state) as connected:
        os.kill(peers.pid_of(connected), signal.SIGKILL)
    deadline = time.monotonic() + _KILL_LIMIT
    while is_locked(state):
        if time.monotonic() > deadline:
            raise InternalError(
                f"The local Modal server of {state.root} does not end",
                hint="It may run on another machine that shares this folder.",
            )
        time.sleep(0.01)
