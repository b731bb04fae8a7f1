"""Fork a server's warm nursery from a process that several servers share.

A server that finds a socket in $MODALRUN_LOCAL_NURSERY connects to it. `tests/shared_nursery.py`
starts such a process for a test suite. For Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalrun.localmodal import peers
from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox import rootfs, warm
from modalrun.localmodal.sandbox.recipe import Recipe

VARIABLE = "MODALRUN_LOCAL_NURSERY"


def arguments(socket_: int, shown: Path, request: Preload) -> list[str]:
    """Return the command of a warm nursery; `ps` shows the path `shown`."""
    text = json.dumps({**request.to_json(), "python": sys.executable})
    return [sys.executable, warm.__file__, str(socket_), str(shown), text]


def environment(home: Path, request: Preload) -> dict[str, str]:
    """Return the environment of a warm nursery: that of a sandbox."""
    return rootfs.environment(home, Recipe(), request.env, {})


class Forked:
    """Handle of a nursery that was forked from the shared one."""

    def __init__(self) -> None:
        self._end: int | None = None

    def attach(self, pid: int) -> None:
        """Set its process id while it runs."""
        self._end = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Poll like `subprocess.Popen.poll`, but without the real exit code."""
        return None if self._end is None or not _is_over(self._end, 0) else 0

    def wait(self) -> int:
        """Wait like `subprocess.Popen.wait`; return at once if the process id is unknown."""
        if self._end is not None:
            _is_over(self._end, None)
            os.close(self._end)
            self._end = None
        return 0

    def kill(self) -> None:
        """Kill like `subprocess.Popen.kill`; an unknown process ends with its socket."""
        if self._end is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._end, signal.SIGKILL)


def join(
    path: str, argv: Sequence[str], env: Mapping[str, str], streams: tuple[int, int, int]
) -> socket.socket | None:
    """Ask the shared process to fork a nursery.

    Returns:
        Its socket; None if no process of this user listens at `path`, in a folder that is closed
        to others.
    """
    channel = socket.socket(socket.AF_UNIX)
    # The root comes first: `ps` cuts the end where the shared process had less room.
    env = {rootfs.ROOT_VARIABLE: env[rootfs.ROOT_VARIABLE], **env}
    request: dict[str, Any] = {"argv": argv, "env": env, "request": json.loads(argv[-1])}
    try:
        if Path(path).parent.stat().st_mode & 0o077:
            raise PermissionError("other users can reach it")
        channel.connect(path)
        if not peers.is_own(channel):
            # It would get the environment of sandboxes, and could run anything for them.
            raise PermissionError("the process that listens there is another user's")
        socket.send_fds(channel, [b" "], streams)
        channel.sendall(json.dumps(request).encode() + b"\n")
    except OSError:
        channel.close()
        return None
    return channel


def _is_over(process: int, milliseconds: int | None) -> bool:
    # Not `select`, which takes no descriptors above 1023.
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(milliseconds))
