"""Find, start and stop the local Modal server, and send it requests.

Each request resets the server's idle timer.

Requests go to the control socket in the state folder, which no other user can bind or reach. So a
stale info file does no harm, nor does whoever has got the port of a server that has ended.

Each function takes a state folder; None means `default_state_dir()`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from modalrun.errors import MachineError, NotFoundError, UsageError
from modalrun.localmodal.preload import Preload
from modalrun.localmodal.server_info import (
    UNISOLATED,
    UNISOLATED_VARIABLE,
    VARIABLES,
    NoAnswerError,
    ServerInfo,
    ask,
    ask_parts,
    is_set,
    read_info,
)
from modalrun.localmodal.server_lock import is_locked, kill_server, start_lock
from modalrun.localmodal.storage.disk import ADVICE, DISK_FULL, Disk
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.logstore import LIMIT_VARIABLE, SandboxLog
from modalrun.localmodal.storage.paths import STATE_VARIABLE, StateDir, default_state_dir
from modalrun.util.paths import user_path

__all__ = [
    "DISK_FULL",
    "STATE_VARIABLE",
    "VARIABLES",
    "Preload",
    "ServerInfo",
    "StateDir",
    "default_state_dir",
    "ensure_running",
    "follow",
    "has_ended_variables",
    "kill",
    "preload",
    "running",
    "status",
    "stop",
    "stored",
]


IDLE_TIMEOUT_VARIABLE = "MODALRUN_LOCAL_IDLE_TIMEOUT"
ISOLATED_VARIABLE = "MODALRUN_LOCAL_ISOLATED_PYTHON"
LENIENT_VARIABLE = "MODALRUN_LOCAL_LENIENT"
PRELOAD_VARIABLE = "MODALRUN_LOCAL_PRELOAD"
RETENTION_VARIABLE = "MODALRUN_LOCAL_RETENTION_DAYS"
DEFAULT_IDLE_TIMEOUT = 900.0
DEFAULT_RETENTION_DAYS = 30.0

_START_LIMIT = 30.0
_STOP_LIMIT = 30.0
_LOG_TAIL = 2000


def _state(state_dir: Path | None) -> StateDir:
    """Return a state folder. Raises UsageError if it is not the server's and not this user's."""
    state = StateDir(user_path(state_dir or default_state_dir(), "--state-dir").absolute())
    state.check()
    return state


def _query(state: StateDir) -> tuple[ServerInfo, dict[str, Any]] | None:
    """Return the server of the info file and its status; None if it does not answer."""
    info = read_info(state)
    if info is None:
        return None
    try:
        answer: dict[str, Any] = json.loads(ask(state, "GET", "/status"))
    except (NoAnswerError, ValueError):
        return None
    return (info, answer) if answer.get("pid") == info.pid else None


def running(state_dir: Path | None = None) -> ServerInfo | None:
    """Return the server of a state folder if it runs and answers; never start it."""
    found = _query(_state(state_dir))
    return found[0] if found else None


def status(state_dir: Path | None = None) -> dict[str, Any] | None:
    """Return the status of the running server (`LocalServer.status`); None if none runs."""
    found = _query(_state(state_dir))
    return found[1] if found else None


def has_ended_variables() -> bool:
    """Return whether the environment has the variables of `modalrun local env` for an ended server.

    Anybody may have got its port.
    """
    state = StateDir(default_state_dir())
    if os.environ.get("MODAL_CONFIG_PATH") != str(state.modal_config):
        return False
    info = running()
    # Either may differ: a proxy before the server, a wrong token for it.
    return info is None or (
        os.environ.get("MODAL_SERVER_URL") != info.url
        and os.environ.get("MODAL_TOKEN_SECRET") != info.token_secret
    )


def follow(sandbox_id: str | None, state_dir: Path | None = None) -> Iterator[bytes]:
    """Follow the output of a sandbox, or the server's own log (None), until it ends.

    Raises:
        NotFoundError: The server has no such sandbox, or does not run.
    """
    path = f"/log/{sandbox_id}" if sandbox_id else "/log"
    try:
        yield from ask_parts(_state(state_dir), "GET", path, None)
    except NoAnswerError as error:
        raise NotFoundError(f"No output of '{sandbox_id}' to follow: {error}") from None


def stored(
    sandbox_id: str | None, state_dir: Path | None = None, *, timestamps: bool = False
) -> Iterator[bytes]:
    """Yield the stored output of a sandbox, or the server's own log (None), without a server.

    Args:
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
            hint="'modal container list' and 'modalrun local status' show sandboxes.",
        ) from None
    for span in log.spans():
        if timestamps:
            stamp = datetime.fromtimestamp(span.time_ns / 1e9).astimezone()
            head = f"{stamp.isoformat(timespec='milliseconds')} "
            yield "".join(head + line for line in log.lines(span)).encode()
        else:
            yield log.read_span(span)


def stored_sandboxes(state_dir: Path | None = None) -> list[str]:
    """Return the ids of the sandboxes whose output is stored, newest first."""
    found = _state(state_dir).logs("").glob("sb-*")
    return [path.name for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)]


def kill(sandbox_id: str, state_dir: Path | None = None) -> bool:
    """Terminate a sandbox and wait until it has ended; return whether it was running.

    Raises:
        NotFoundError: The server has no such sandbox, or does not run.
    """
    state = _state(state_dir)
    if _query(state) is None:
        raise NotFoundError(
            "The local Modal server does not run.", hint="Without it no sandbox runs."
        )
    try:
        answer = json.loads(ask(state, "POST", f"/kill/{sandbox_id}", limit=_STOP_LIMIT))
    except (NoAnswerError, ValueError) as error:
        raise NotFoundError(
            f"The local Modal server has no sandbox '{sandbox_id}' ({error}).",
            hint="'modalrun local status' shows the running ones.",
        ) from None
    return bool(answer["was_running"])


def ensure_running(
    state_dir: Path | None = None,
    *,
    idle_timeout: float | None = None,
    lenient: bool = False,
    isolated_python: bool = False,
) -> ServerInfo:
    """Return the server of a state folder; start it if it does not run.

    Of several concurrent callers, one starts it. An idle server from another Python environment is
    replaced: with its Python, the imports of sandboxes are in memory when they start.

    Args:
        idle_timeout: Seconds without a sandbox and without a call after which a new server ends;
            0 for never; None for $MODALRUN_LOCAL_IDLE_TIMEOUT or 900.
        lenient: Whether a new server accepts what its catalog of Modal's offers lacks; also by
            $MODALRUN_LOCAL_LENIENT.
        isolated_python: Whether the sandboxes of a new server run the Python of their image; also
            by $MODALRUN_LOCAL_ISOLATED_PYTHON.

    Raises:
        UsageError: The state folder or a variable cannot be used, or the disk is full.
        MachineError: The server could not be started; the message ends with its log's last lines.
    """
    state = _state(state_dir)
    try:
        state.create()
        with start_lock(state):
            return _find_or_start(
                state, idle_timeout, lenient=lenient, isolated_python=isolated_python
            )
    except OSError as error:
        raise state.unusable(str(error)) from error


def _find_or_start(
    state: StateDir, idle_timeout: float | None, *, lenient: bool, isolated_python: bool
) -> ServerInfo:
    found = _find(state)
    if found is not None:
        info, answer = found
        if answer["python"] == sys.prefix or answer["running"]:
            return info
        stop(state.root)
    if idle_timeout is None:
        idle_timeout = _number(IDLE_TIMEOUT_VARIABLE, DEFAULT_IDLE_TIMEOUT)
    if is_set(UNISOLATED_VARIABLE):
        sys.stderr.write(f"{UNISOLATED}\n")  # noqa: TID251 (the writer is above this package)
    options = ["--lenient"] if lenient or is_set(LENIENT_VARIABLE) else []
    options += ["--isolated-python"] if isolated_python or is_set(ISOLATED_VARIABLE) else []
    return _start(state, idle_timeout, options)


def _find(state: StateDir) -> tuple[ServerInfo, dict[str, Any]] | None:
    """Return the server of a state folder and its status; None once none runs.

    One that ends is waited for; one that does not answer for long is killed.
    """
    until = time.monotonic() + _STOP_LIMIT
    while True:
        # Before the question: a machine that stood still is not the fault of its server.
        is_late = time.monotonic() > until
        if (found := _query(state)) is not None or not is_locked(state):
            return found
        if is_late:
            kill_server(state)
            return None
        time.sleep(0.01)


def preload(info: ServerInfo, request: Preload) -> None:
    """Ask the server to import modules in the background, so that sandboxes start with them.

    $MODALRUN_LOCAL_PRELOAD replaces the modules of `request`; set and empty, it disables
    preloading. If the server does not answer, or sandboxes have a Python of their own, nothing is
    preloaded.
    """
    if info.isolated_python:
        return
    override = os.environ.get(PRELOAD_VARIABLE)
    if override is not None:
        request = replace(request, modules=tuple(override.replace(",", " ").split()))
    with contextlib.suppress(NoAnswerError):
        ask(StateDir(info.state_dir), "POST", "/preload", json.dumps(request.to_json()).encode())


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{variable} is not a number: {text!r}")
    return number


def _start(state: StateDir, idle_timeout: float, options: list[str]) -> ServerInfo:
    retention = _number(RETENTION_VARIABLE, DEFAULT_RETENTION_DAYS) * 24 * 3600
    # The server reads it for each log.
    _number(LIMIT_VARIABLE, 0)
    package = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    # The server runs in another folder and must import what this process can.
    environment["PYTHONPATH"] = os.pathsep.join(
        [package, *filter(None, [environment.get("PYTHONPATH")])]
    )
    ready, server_end = os.pipe()
    log = os.open(state.server_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    before = os.fstat(log).st_size
    try:
        command = [sys.executable, "-m", "modalrun.localmodal", "--detach"]
        command += ["--state-dir", str(state.root), "--ready-fd", str(server_end)]
        command += ["--idle-timeout", str(idle_timeout), "--retention", str(retention)]
        command += options
        subprocess.run(  # noqa: S603 (the command is ours)
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
            pass_fds=[server_end],
            check=False,
        )
        os.close(server_end)
        server_end = -1
        is_ready = select.select([ready], [], [], _START_LIMIT)[0] and os.read(ready, 1)
    finally:
        for descriptor in (ready, log, server_end):
            if descriptor >= 0:
                os.close(descriptor)
    info = read_info(state) if is_ready else None
    if info is None:
        try:
            Disk(state.root).require()
        except OSError:
            raise UsageError(
                f"{DISK_FULL} {state.root} is full, so the server did not start.", hint=ADVICE
            ) from None
        with state.server_log.open("rb") as file:
            file.seek(max(before, state.server_log.stat().st_size - _LOG_TAIL))
            tail = file.read().decode("utf-8", "replace").strip()
        raise MachineError(
            "The local Modal server did not start."
            + (f" Its log ends with:\n{tail}" if tail else ""),
            hint=f"Its log is {state.server_log}",
        )
    return info


def stop(state_dir: Path | None = None) -> bool:
    """Stop the server of a state folder and its sandboxes; wait until all have ended.

    Returns:
        Whether a server ran.

    Raises:
        InternalError: The server does not end, not even when killed.
    """
    state = _state(state_dir)
    if not is_locked(state):
        return False
    is_asked = False
    deadline = time.monotonic() + _STOP_LIMIT
    while is_locked(state):
        if time.monotonic() > deadline:
            kill_server(state)
        elif not is_asked:
            # One that is just starting does not answer yet.
            with contextlib.suppress(NoAnswerError):
                ask(state, "POST", "/stop")
                is_asked = True
        time.sleep(0.01)
    return True
