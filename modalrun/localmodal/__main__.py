"""Run the server process, `python -m modalrun.localmodal`; the launcher starts it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def _raise_open_files() -> int:
    """Raise the limit of file descriptors (a sandbox needs a dozen); return the old soft limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return 0 if soft == resource.RLIM_INFINITY else soft


def main() -> int | str:
    """Run the server; return its exit code, or the message with which it fails."""
    parser = argparse.ArgumentParser(prog="python -m modalrun.localmodal")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--idle-timeout", type=float, default=900.0)
    parser.add_argument("--retention", type=float, default=30 * 24 * 3600.0)
    parser.add_argument("--lenient", action="store_true")
    parser.add_argument("--isolated-python", action="store_true")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--detach", action="store_true")
    arguments = parser.parse_args()

    if arguments.detach and os.fork():
        # The launcher waits for this process only.
        os._exit(0)
    os.umask(0o077)

    from modalrun.errors import UsageError
    from modalrun.localmodal import server_lock
    from modalrun.localmodal.storage.paths import StateDir

    state = StateDir(arguments.state_dir.absolute())
    try:
        state.create()
        os.chdir(state.root)
    except (OSError, UsageError) as error:
        print(error, file=sys.stderr)  # noqa: T201 (the launcher shows it)
        return UsageError.exit_code
    if not server_lock.hold(state):
        return f"another server already uses {state.root}"

    import asyncio
    import logging
    import sqlite3

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A full disk has no room for them either.
    logging.raiseExceptions = False
    # grpclib reports every cancelled stream there.
    logging.getLogger("grpclib").setLevel(logging.ERROR)

    from modalrun.localmodal.local_server import LocalServer

    open_files = _raise_open_files()

    async def run() -> None:
        server = LocalServer(
            state,
            idle_timeout=arguments.idle_timeout,
            retention=arguments.retention,
            lenient=arguments.lenient,
            isolated_python=arguments.isolated_python,
        )
        server.sandboxes.starter.open_files = open_files

        def on_ready() -> None:
            if arguments.ready_fd >= 0:
                os.write(arguments.ready_fd, b"1")
                os.close(arguments.ready_fd)

        await server.run(on_ready)

    try:
        asyncio.run(run())
    except (OSError, sqlite3.Error) as error:
        return f"the server failed: {error}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
