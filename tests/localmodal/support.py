"""What the tests of the local server share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import psutil
from servers import sharing

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import SandboxRecord, Store

TREE = str(Path(launcher.__file__).parents[2])
PATIENCE = round(30 * sharing.PATIENCE)

START_DAEMON = """
import os, sys, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        os.closerange(0, 3)
        time.sleep(1000)
    os._exit(0)
os.wait()
"""
"""Starts a process that has left the session, the group and its parents behind; `reader` has its
process id."""


def root_of(process: psutil.Process) -> str:
    """The folder that is the root of a process: `/`, or that of its sandbox."""
    try:
        own = Path(f"/proc/{process.pid}/mountinfo").read_text().split()[3]
    except (OSError, IndexError):
        # It is ending, or this is no Linux.
        own = ""
    try:
        return own + process.environ().get("MODALRUN_LOCAL_ROOT", "")
    except psutil.Error:
        # It is just executing its command.
        return own


def processes_of(state: Path) -> list[psutil.Process]:
    """The server of a state folder, its keepers and whatever runs in its sandboxes."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if f" {state}" in line or str(state) in root_of(process):
                found.append(process)
    return found


def processes_in(sandbox: modal.Sandbox) -> dict[int, psutil.Process]:
    """What runs in a sandbox, by the process ids there."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if sandbox.object_id in root_of(process):
                status = Path(f"/proc/{process.pid}/status").read_text()
                found[int(re.findall(r"NSpid:.*\t(\d+)", status)[0])] = process
    return found


def servers_of(state: Path) -> list[psutil.Process]:
    """The servers of a state folder."""
    return [p for p in processes_of(state) if "modalrun.localmodal" in p.cmdline()]


def wait_for_end(state: Path) -> None:
    """Wait until no server holds the lock of the state folder."""
    with StateDir(state).server_lock.open() as lock:
        # The process that waits can be given up, a blocked flock in this one could not.
        code = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_SH)"
        subprocess.run(
            [sys.executable, "-c", code, str(lock.fileno())],
            pass_fds=[lock.fileno()],
            timeout=PATIENCE,
            check=True,
        )
        fcntl.flock(lock, fcntl.LOCK_UN)


def kill_server(info: ServerInfo) -> None:
    """Kill a server, and wait until nothing of it is left."""
    processes = processes_of(info.state_dir)
    psutil.Process(info.pid).kill()
    wait_for_end(info.state_dir)
    for process in processes:
        wait_until_gone(process.pid)


def close(client: modal.Client) -> None:
    """Close a client of the SDK; before modal 1.6.4 that was private."""
    (client.close if hasattr(client, "close") else client._close)()


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is not ours."""
    if hasattr(os, "pidfd_open"):
        # Tells of the end itself; psutil waits until init has taken note of it.
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            assert select.select([descriptor], [], [], PATIENCE)[0]
            os.close(descriptor)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(PATIENCE)


@dataclass
class Sdk:
    """The real SDK, pointed at one server. Objects are made anew: it caches some per process."""

    info: ServerInfo
    client: modal.Client

    def app(self, name: str = "tests") -> modal.App:
        return modal.App.lookup(name, create_if_missing=True, client=self.client)

    def create(self, *command: str, app: modal.App | None = None, **options: Any) -> modal.Sandbox:
        options.setdefault("timeout", PATIENCE)
        options.setdefault("image", modal.Image.debian_slim())
        return modal.Sandbox.create(*command, app=app or self.app(), client=self.client, **options)

    def sandbox(self, sandbox_id: str) -> modal.Sandbox:
        return modal.Sandbox.from_id(sandbox_id, client=self.client)

    def record(self, sandbox: modal.Sandbox) -> SandboxRecord:
        """What the server has written down of a sandbox."""
        store = Store(StateDir(self.info.state_dir).database)
        found = store.sandbox(sandbox.object_id)
        store.close()
        assert found is not None
        return found

    def script(self, code: str, *arguments: str) -> str:
        """Run a script in another process, as another user of the same server; its stdout."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **self.info.environ()},
            capture_output=True,
            text=True,
            # It may be a dozen of Modal's commands, on a busy machine.
            timeout=5 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
