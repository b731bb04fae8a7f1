"""Import once for many local Modal servers: python shared_nursery.py SOCKET PRELOAD

PRELOAD is a `Preload` as JSON. A server that finds SOCKET in $MODALRUN_LOCAL_NURSERY gets its
nursery from this process if it needs the same modules. The process ends with its standard input.
Its standard streams must be pipes like those of a sandbox, because Python inspects them only once,
when it starts. For Linux only.

The process executes itself again in a sandbox's environment, with the arguments of `warm.py`.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # The folder of this file, which no sandbox has.
    del sys.path[0]

import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalrun.localmodal import peers
from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox import warm
from modalrun.localmodal.sandbox.shared_nursery import VARIABLE, arguments, environment

__all__ = ["VARIABLE"]


def listen(path: Path, request: Preload) -> None:
    """Listen on a socket, then execute this file in a sandbox's environment."""
    os.umask(0o077)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    # Servers that connect during the import wait here.
    listener.listen(128)
    listener.set_inheritable(True)
    os.chdir("/")
    python, _, *rest = arguments(listener.fileno(), path, request)
    os.execve(python, [python, __file__, *rest], environment(path.parent / "preload", request))


def serve(listener: socket.socket, request: Mapping[str, Any]) -> None:
    """Fork a nursery for each server that connects, until the standard input ends."""
    loaded, report = warm.load(request)
    # The kernel reaps ended nurseries.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while 0 not in select.select([listener.fileno(), 0], [], [])[0]:
        if warm.is_outdated(report):
            # Import again; servers that connect wait meanwhile.
            listener.set_inheritable(True)
            os.execve(sys.executable, sys.orig_argv, warm.environment_of_exec())
        channel, _ = listener.accept()
        if peers.is_own(channel) and os.fork() == 0:
            listener.close()
            warm.serve(channel, loaded, {**report, **_join(channel, request)})
        channel.close()
    os._exit(0)


def _join(channel: socket.socket, request: Mapping[str, Any]) -> dict[str, Any]:
    """Make a forked nursery look as if the server at the other end had started it.

    The server sends the descriptors of the standard streams and a line of JSON with the arguments,
    the environment and the request.
    """
    os.setsid()
    text, streams, *_ = socket.recv_fds(channel, 65536, 3)
    while text and not text.endswith(b"\n"):
        text += channel.recv(65536)
    if not text or len(streams) < 3:
        os._exit(0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    server = json.loads(text)
    warm.own_environment()
    # These identify the process, and those that it forks, as the server's.
    warm.show_arguments(server["argv"])
    warm.show_environment(server["env"])
    if server["request"] != request:
        return {"pid": os.getpid(), "problem": "it was started for another request"}
    return {"pid": os.getpid()}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        listen(Path(sys.argv[1]), Preload.from_json(json.loads(sys.argv[2])))
    else:
        serve(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[3]))
