"""Finding, starting and stopping the local Modal server. The rest of modalrun uses this alone.

Two locks in the state folder keep commands and servers from tripping over one another. The server
lock is held by the server for as long as it lives, so a stale info file or a pid that was given to
another process is no danger: what counts is who holds the lock. The start lock is held by a command
while it looks for or starts a server, and by a server that ends from idleness; each command's look
also resets the idle clock, so a server that was found is there for another idle timeout.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from modalrun.errors import InternalError, ModalrunError, NotFoundError
from modalrun.localmodal.preload import Preload
from modalrun.localmodal.server_info import (
    VARIABLES,
    NoAnswerError,
    ServerInfo,
    ask,
    ask_parts,
    read_info,
)
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.logstore import SandboxLog
from modalrun.localmodal.storage.paths import STATE_VARIABLE, StateDir, default_state_dir

__all__ = [
    "STATE_VARIABLE",
    "VARIABLES",
    "Preload",
    "ServerInfo",
    "StateDir",
    "default_state_dir",
    "ensure_running",
    "follow",
    "kill",
    "preload",
    "running",
    "status",
    "stop",
    "stored",
]


IDLE_TIMEOUT_VARIABLE = "MODALRUN_LOCAL_IDLE_TIMEOUT"
PRELOAD_VARIABLE = "MODALRUN_LOCAL_PRELOAD"
RETENTION_VARIABLE = "MODALRUN_LOCAL_RETENTION_DAYS"
DEFAULT_IDLE_TIMEOUT = 900.0
DEFAULT_RETENTION_DAYS = 30.0

_START_LIMIT = 30.0
_STOP_LIMIT = 30.0
_LOG_TAIL = 2000


def _holder(state: StateDir) -> int | None:
    """The pid of the server that holds the server lock; None when nobody does."""
    try:
        descriptor = os.open(state.server_lock, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


@contextlib.contextmanager
def _start_lock(state: StateDir) -> Iterator[None]:
    descriptor = os.open(state.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _state(state_dir: Path | None) -> StateDir:
    return StateDir((state_dir or default_state_dir()).expanduser().absolute())


def _look(state: StateDir) -> tuple[ServerInfo, dict[str, Any]] | None:
    """The server that the info file names, and what it says of itself; None if it is silent."""
    info = read_info(state)
    if info is None:
        return None
    try:
        answer: dict[str, Any] = json.loads(ask(info, "GET", "/status"))
    except (NoAnswerError, ValueError):
        return None
    return (info, answer) if answer.get("pid") == info.pid else None


def running(state_dir: Path | None = None) -> ServerInfo | None:
    """The server of a state folder, if it runs and answers; it is not started.

    Args:
        state_dir: The state folder; None for `default_state_dir()`.
    """
    found = _look(_state(state_dir))
    return found[0] if found else None


def status(state_dir: Path | None = None) -> dict[str, Any] | None:
    """What the running server says of itself (see `LocalServer.status`); None if none runs."""
    found = _look(_state(state_dir))
    return found[1] if found else None


def follow(sandbox_id: str | None, state_dir: Path | None = None) -> Iterator[bytes]:
    """The output of a sandbox, or the server's own log (None), as it comes, until it ends.

    Raises:
        NotFoundError: The server knows no such sandbox, or does not run.
    """
    info = running(state_dir)
    try:
        if info is None:
            raise NoAnswerError("no server runs")
        path = f"/log/{sandbox_id}" if sandbox_id else "/log"
        yield from ask_parts(info, "GET", path, None)
    except NoAnswerError as error:
        raise NotFoundError(f"No output of '{sandbox_id}' to follow: {error}") from None


def stored(
    sandbox_id: str | None, state_dir: Path | None = None, *, timestamps: bool = False
) -> Iterator[bytes]:
    """Yield the stored output of a sandbox, or the server's own log (None), without a server.

    Args:
        sandbox_id: Modal's id.
        state_dir: The state folder; None for `default_state_dir()`.
        timestamps: Whether each line of a sandbox begins with its local time.

    Raises:
        NotFoundError: No output of this sandbox is stored.
    """
    state = _state(state_dir)
    if sandbox_id is None:
        if state.server_log.exists():
            yield state.server_log.read_bytes()
        return
    try:
        log = SandboxLog(state.logs(sandbox_id), Clock(), writable=False)
    except FileNotFoundError:
        raise NotFoundError(
            f"No output of sandbox '{sandbox_id}' is stored in {state.logs(sandbox_id).parent}",
            hint="`modal container list` and `modalrun local status` show sandboxes.",
        ) from None
    for span in log.spans():
        if timestamps:
            stamp = datetime.fromtimestamp(span.time_ns / 1e9).astimezone()
            head = f"{stamp.isoformat(timespec='milliseconds')} "
            yield "".join(head + line for line in log.lines(span)).encode()
        else:
            yield log.read(span.descriptor, span.start, span.end - span.start)


def kill(sandbox_id: str, state_dir: Path | None = None) -> bool:
    """End a sandbox at once, as if somebody had terminated it on Modal; waits until it has ended.

    Args:
        sandbox_id: Modal's id.
        state_dir: The state folder; None for `default_state_dir()`.

    Returns:
        Whether it was running.

    Raises:
        NotFoundError: The server knows no such sandbox, or does not run, and so nothing of it.
    """
    info = running(state_dir)
    if info is None:
        raise NotFoundError(
            "The local Modal server does not run.", hint="Without it no sandbox runs."
        )
    try:
        parts = ask_parts(info, "POST", f"/kill/{sandbox_id}", _STOP_LIMIT)
        answer = json.loads(b"".join(parts))
    except (NoAnswerError, ValueError) as error:
        raise NotFoundError(
            f"The local Modal server knows no sandbox '{sandbox_id}' ({error}).",
            hint="`modalrun local status` shows those that run.",
        ) from None
    return bool(answer["was_running"])


def ensure_running(
    state_dir: Path | None = None, *, idle_timeout: float | None = None
) -> ServerInfo:
    """The server of a state folder, started if it does not run. Of several callers, one starts it.

    A server that was started from another Python environment and has nothing running is replaced,
    because sandboxes run the Python of their server.

    Args:
        state_dir: The state folder; None for `default_state_dir()`.
        idle_timeout: Seconds without a sandbox and without a call after which a server that is
            started now ends by itself; 0 for never; None for $MODALRUN_LOCAL_IDLE_TIMEOUT or 900.

    Raises:
        ModalrunError: The server could not be started; the message ends with its log's last lines.
    """
    state = _state(state_dir)
    try:
        state.create()
    except OSError as error:
        raise ModalrunError(
            f"The state folder of the local Modal server cannot be used: {error}",
            hint="Set MODALRUN_LOCAL_STATE to a folder that you can write to.",
        ) from error
    with _start_lock(state):
        found = _look(state)
        if found is not None:
            info, answer = found
            # Sandboxes run the server's Python: one of another environment gives way, if it can.
            if answer.get("python") == sys.prefix or answer["running"]:
                return info
            stop(state.root)
        holder = _holder(state)
        if holder is not None:
            # A server that is ending gives its lock free; one that hangs has to be stopped.
            _wait_for_end(state, holder)
        return _start(state, _seconds(idle_timeout))


def preload(info: ServerInfo, wanted: Preload) -> None:
    """Have modules imported in the background, so that sandboxes start with them in memory.

    What $MODALRUN_LOCAL_PRELOAD names counts instead of the modules of `wanted`; if it is set and
    empty, nothing is preloaded. If the server can't be asked, sandboxes start without.
    """
    chosen = os.environ.get(PRELOAD_VARIABLE)
    if chosen is not None:
        wanted = replace(wanted, modules=tuple(chosen.replace(",", " ").split()))
    with contextlib.suppress(NoAnswerError):
        ask(info, "POST", "/preload", json.dumps(wanted.to_json()).encode())


def _seconds(idle_timeout: float | None) -> float:
    if idle_timeout is not None:
        return idle_timeout
    return _number(IDLE_TIMEOUT_VARIABLE, DEFAULT_IDLE_TIMEOUT)


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    try:
        return float(text) if text else default
    except ValueError:
        raise ModalrunError(f"{variable} is not a number: {text!r}") from None


def _start(state: StateDir, idle_timeout: float) -> ServerInfo:
    retention = _number(RETENTION_VARIABLE, DEFAULT_RETENTION_DAYS) * 24 * 3600
    package = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    # The server runs in another folder: what this process could import, it can too.
    environment["PYTHONPATH"] = os.pathsep.join(
        [package, *filter(None, [environment.get("PYTHONPATH")])]
    )
    ready, theirs = os.pipe()
    log = os.open(state.server_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    before = os.fstat(log).st_size
    try:
        command = [sys.executable, "-m", "modalrun.localmodal", "--detach"]
        command += ["--state-dir", str(state.root), "--ready-fd", str(theirs)]
        command += ["--idle-timeout", str(idle_timeout), "--retention", str(retention)]
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
            pass_fds=[theirs],
            check=False,
        )
        os.close(theirs)
        theirs = -1
        said = b""
        while select.select([ready], [], [], _START_LIMIT)[0] and (part := os.read(ready, 65536)):
            said += part
    finally:
        for descriptor in (ready, log, theirs):
            if descriptor >= 0:
                os.close(descriptor)
    info = read_info(state) if said else None
    if info is None:
        with state.server_log.open("rb") as file:
            file.seek(max(before, state.server_log.stat().st_size - _LOG_TAIL))
            tail = file.read().decode("utf-8", "replace").strip()
        raise ModalrunError(
            "The local Modal server did not start."
            + (f" Its log ends with:\n{tail}" if tail else ""),
            hint=f"Its log is {state.server_log}",
        )
    return info


def _wait_for_end(state: StateDir, pid: int) -> None:
    """Wait until nobody holds the server lock; kill who still does when the time is over."""
    for last_resort in (None, signal.SIGKILL):
        if last_resort is not None and pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, last_resort)
        if _lock_becomes_free(state, _STOP_LIMIT):
            return
    raise InternalError(f"The local Modal server (pid {pid}) does not end")


def _lock_becomes_free(state: StateDir, limit: float) -> bool:
    """Wait at most `limit` seconds for the server lock. A child waits: flock has no time limit."""
    waiter = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WAITER, str(state.server_lock)],
        stdin=subprocess.DEVNULL,
    )
    try:
        return waiter.wait(limit) == 0
    except subprocess.TimeoutExpired:
        waiter.kill()
        waiter.wait()
        return False


_WAITER = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH)"


def stop(state_dir: Path | None = None) -> bool:
    """End the server of a state folder and its sandboxes, and wait until that is true.

    Returns:
        Whether a server ran.

    Raises:
        InternalError: The server does not end, not even when killed.
    """
    state = _state(state_dir)
    holder = _holder(state)
    if holder is None:
        return False
    info = read_info(state)
    try:
        if info is None or info.pid != holder:
            raise NoAnswerError
        ask(info, "POST", "/stop")
    except NoAnswerError:
        with contextlib.suppress(ProcessLookupError):
            if holder:
                os.kill(holder, signal.SIGTERM)
    _wait_for_end(state, holder)
    return True
