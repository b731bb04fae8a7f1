"""Run the servers below a folder: until Ctrl-C, or while another process lives.

    PYTHONPATH=tests python -m servers FOLDER

prints what to export to work there as a service account with an API key.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from servers import together, workspace


def main() -> None:
    """Start the servers, say so, and end them when asked to or when nobody needs them."""
    parser = argparse.ArgumentParser(prog="python -m servers", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--while", dest="pid", type=int, help="end with this process")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with together.running(arguments.folder.absolute()) as servers:
        if arguments.pid is None:
            made = workspace.make(servers.api(), servers.s3, "first")
            print(f"# ZenML server with {servers.database}; user default,", flush=True)
            print(f"# password {servers.backend.password}", flush=True)
            for name, value in made.environment().items():
                print(f"export {name}={shlex.quote(value)}", flush=True)
        servers.write(arguments.folder)
        while not over.wait(0.5) and (arguments.pid is None or _alive(arguments.pid)):
            pass
        (arguments.folder / together.FILE).unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
