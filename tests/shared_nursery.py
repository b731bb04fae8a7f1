"""Import once for many local Modal servers: python -m shared_nursery SOCKET PRELOAD

PRELOAD is a `Preload` as JSON. A server that finds SOCKET in $MODALRUN_LOCAL_NURSERY forks its
nursery from this process if it was asked to preload the same. The process ends when its standard
input does. Its standard streams must be pipes, as those of a sandbox are: Python inspects them only
once, when it starts. For Linux only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox.shared_nursery import VARIABLE, arguments, environment

__all__ = ["VARIABLE", "main"]


def main() -> None:
    """Become the process that preloads."""
    path, text = Path(sys.argv[1]), sys.argv[2]
    request = Preload.from_json(json.loads(text))
    os.umask(0o077)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    # Servers that connect during the import wait here.
    listener.listen(128)
    listener.set_inheritable(True)
    os.chdir("/")
    argv = arguments(listener.fileno(), path, request)
    os.execve(argv[0], argv, environment(path.parent / "preload", request))


if __name__ == "__main__":
    main()
