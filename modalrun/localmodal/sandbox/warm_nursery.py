"""Start and use the nursery that has imported modules (`warm`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox import rootfs, shared_nursery, warm
from modalrun.localmodal.sandbox.nursery import Nursery
from modalrun.localmodal.sandbox.process import Command, future, settle

log = logging.getLogger(__name__)

READY_LIMIT = 20.0
"""Seconds that a sandbox waits for a loading nursery; a cold start would repeat its imports."""


class WarmNursery:
    """A nursery with modules in memory, for the commands that fit it."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._request: Preload | None = None
        self._process: _Process | None = None

    def request(self, request: Preload) -> None:
        """Preload from now on, or stop preloading if the request names no modules."""
        if sys.platform != "linux":
            # Elsewhere a fork with so many libraries is not safe.
            return
        if request != self._request:
            self.close()
            self._request = request if request.modules else None
        self._renew()

    def _renew(self) -> None:
        """Start a process if there is a request; restart one that died or is outdated."""
        if self._process is not None and self._process.is_stale():
            log.info("the warm nursery restarts")
            self.close()
        if self._process is None and self._request is not None:
            self._process = _Process(self._state, self._request)
            self._process.start()

    async def nursery_for(self, command: Command, given_up: asyncio.Future[None]) -> Nursery | None:
        """Wait for the nursery of a command; return None if the command must start cold.

        Args:
            given_up: Ends the wait.
        """
        env, request = command.env, self._request
        if (
            request is None
            or env.get(rootfs.PYTHON_VARIABLE, sys.prefix) != sys.prefix
            or not warm.is_program(command.argv, env, sys.executable, request.programs)
        ):
            return None
        self._renew()
        process = self._process
        assert process is not None
        if not process.ready.done():
            either = {process.ready, given_up}
            await asyncio.wait(either, timeout=READY_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            if not (process.ready.done() or given_up.done()):
                log.warning("there is no warm nursery: its imports do not end")
                self.close()
                self._request = None
        return process if process.suits(command) else None

    def status(self) -> dict[str, Any]:
        """Return the state for `modalrun local status`."""
        return {"state": "off"} if self._process is None else self._process.status()

    def close(self) -> None:
        """End it; its sandboxes continue."""
        if self._process is not None:
            self._process.close()
            self._process = None


class _Process(Nursery):
    """One warm process."""

    def __init__(self, state: Path, request: Preload) -> None:
        super().__init__(state)
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._received = b""
        self._report: dict[str, Any] = {}
        self._warm: warm.Warm | None = None
        self._output = -1
        # Set if its process is not our child.
        self._forked: shared_nursery.Forked | None = None
        self.ready: asyncio.Future[None] = future()

    def start(self) -> None:
        """Start to import, or join the shared nursery."""
        path = os.environ.get(shared_nursery.VARIABLE)
        if path is None or not self._join(path):
            self._start_own()

    def _start_own(self) -> None:
        ours, theirs = socket.socketpair()
        argv, env = self._command(theirs.fileno())
        with theirs, self._streams() as (nothing, output):
            self._process = subprocess.Popen(  # noqa: S603 (the command is ours)
                argv,
                stdin=nothing,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=env,
                cwd="/",
                start_new_session=True,
            )
        self._listen(ours)

    def _join(self, path: str) -> bool:
        with self._streams() as (nothing, output):
            ours = shared_nursery.join(path, *self._command(0), (nothing, output, output))
        if ours is None:
            self._close_output()
            return False
        self._process = self._forked = shared_nursery.Forked()
        self._listen(ours)
        return True

    def _command(self, descriptor: int) -> tuple[list[str], dict[str, str]]:
        """Return the command and the environment."""
        return (
            shared_nursery.arguments(descriptor, self._state, self._request),
            shared_nursery.environment(self._state / "preload", self._request),
        )

    @contextlib.contextmanager
    def _streams(self) -> Iterator[tuple[int, int]]:
        """Open its input and output until it has inherited them."""
        # Pipes like those of a sandbox, because Python inspects its streams at the start.
        nothing, end = os.pipe()
        os.close(end)
        self._output, output = os.pipe()
        self._loop.add_reader(self._output, self._print)
        try:
            yield nothing, output
        finally:
            os.close(nothing)
            os.close(output)

    def _listen(self, channel: socket.socket) -> None:
        self._received = b""
        self._socket = channel
        self._loop.add_reader(channel, self._receive)

    def _receive(self) -> None:
        """Read its report, one line of JSON (`warm.load`), or the end of a dead process."""
        assert self._socket is not None
        try:
            data = self._socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if data and not self._received.endswith(b"\n"):
            return
        self._loop.remove_reader(self._socket)
        died: dict[str, Any] = {"problem": "it died during the imports", "seconds": 0.0}
        self._report = json.loads(self._received) if data else died
        if self._forked is not None:
            if self._report["problem"] is not None:
                log.info("the shared nursery cannot be used: %s", self._report["problem"])
                self._forked = None
                self._socket.close()
                self._close_output()
                self._start_own()
                return
            self._forked.attach(self._report["pid"])
        if self._report["problem"] is None:
            values, programs = self._report["values"], self._request.programs
            self._warm = warm.Warm(sys.executable, programs, (), values)
            log.info("the warm nursery is ready after %s s", self._report["seconds"])
        else:
            log.warning("there is no warm nursery: %s", self._report["problem"])
        settle(self.ready)

    def _print(self) -> None:
        try:
            data = os.read(self._output, 65536)
        except OSError:
            data = b""
        if data:
            log.info("the warm nursery prints: %s", data.decode("utf-8", "replace").rstrip())
        else:
            self._close_output()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1

    def is_stale(self) -> bool:
        """Return whether it died, or what it has imported has changed since."""
        if self._warm is None:
            return False
        assert self._process is not None
        return warm.is_outdated(self._report) or self._process.poll() is not None

    def suits(self, command: Command) -> bool:
        """Return whether it is ready and fits a command's environment."""
        return self._warm is not None and self._warm.suits(command.argv, command.env)

    def status(self) -> dict[str, Any]:
        state = "failed" if self._warm is None else "ready"
        details = {key: self._report.get(key) for key in ("seconds", "problem")}
        state = state if self.ready.done() else "loading"
        return {"state": state, **details, "modules": list(self._request.modules)}

    def close(self) -> None:
        """End it, even during its imports; its keepers continue."""
        if self._socket is not None and self._process is not None:
            self._loop.remove_reader(self._socket)
            self._process.kill()
        self._close_output()
        super().close()
        settle(self.ready)
