"""A warm nursery for several servers: each finds the modules in memory, none imports them.

`python -m modalrun.localmodal.shared_nursery SOCKET PRELOAD`, with a `preload.Preload` as JSON,
imports its modules, and ends when its standard input does. Its standard streams have to be pipes,
as those of a sandbox are: Python looks at them only once, when it starts.

A local Modal server that finds SOCKET in $MODALRUN_LOCAL_NURSERY has its nursery forked there if
that is what it was asked to preload. It is for a test suite that starts a server for each test.
For Linux only.
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

from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox import rootfs, warm

VARIABLE = "MODALRUN_LOCAL_NURSERY"


def arguments(socket_: int, shown: Path, request: Preload) -> list[str]:
    """The command of a warm nursery.

    Args:
        socket_: The descriptor of its socket.
        shown: A path for the eyes of `ps`.
        request: What is to be imported.
    """
    asked = {**request.to_json(), "python": sys.executable}
    return [sys.executable, warm.__file__, str(socket_), str(shown), json.dumps(asked)]


def environment(home: Path, request: Preload) -> dict[str, str]:
    """The variables of a warm nursery: those of a sandbox."""
    return rootfs.environment(home, rootfs.Recipe(), request.env, {})


class Forked:
    """A nursery that was forked from the shared one, at the other end of a socket."""

    def __init__(self) -> None:
        self._end: int | None = None

    def told(self, pid: int) -> None:
        """Be told its process id, while it runs."""
        self._end = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """As `subprocess.Popen.poll`, but what the exit code was is not known."""
        return None if self._end is None or not _is_over(self._end, 0) else 0

    def wait(self) -> int:
        """As `subprocess.Popen.wait`; no wait where it has not been told its process id yet."""
        if self._end is not None:
            _is_over(self._end, None)
            os.close(self._end)
            self._end = None
        return 0

    def kill(self) -> None:
        """As `subprocess.Popen.kill`; it ends with its socket where its id is not known yet."""
        if self._end is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._end, signal.SIGKILL)


def join(
    path: str, argv: Sequence[str], env: Mapping[str, str], streams: tuple[int, int, int]
) -> socket.socket | None:
    """Have a nursery forked from the shared one.

    Args:
        path: Where the shared one listens.
        argv: What it would be started with by `arguments`.
        env: What it would be started with by `environment`.
        streams: Its standard streams.

    Returns:
        Its socket; None where nobody listens.
    """
    channel = socket.socket(socket.AF_UNIX)
    # What tells whose it is comes first: the end is cut where the shared one had a smaller one.
    env = {rootfs.ROOT_VARIABLE: env[rootfs.ROOT_VARIABLE], **env}
    request: dict[str, Any] = {"argv": argv, "env": env, "request": json.loads(argv[-1])}
    try:
        channel.connect(path)
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


def main() -> None:
    """Turn into the process that preloads."""
    path, text = Path(sys.argv[1]), sys.argv[2]
    request = Preload.from_json(json.loads(text))
    os.umask(0o077)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    # Servers that come while it imports wait here.
    listener.listen(128)
    listener.set_inheritable(True)
    os.chdir("/")
    argv = arguments(listener.fileno(), path, request)
    os.execve(argv[0], argv, environment(path.parent / "preload", request))


if __name__ == "__main__":
    main()
