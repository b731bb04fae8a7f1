"""Ask the process that has the Modal token for sandboxes of isolated steps (`sandbox_broker`)."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from modalrun import errors
from modalrun.driver.processes.messages import Call, MessageSocket, Reply
from modalrun.driver.processes.process import leave
from modalrun.run import contract
from modalrun.run.reporting import log_line
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.step_request import StepRequest
from modalrun.run.values import adapter


class SandboxClient:
    """Ask for the step sandboxes of a dynamic run, for the threads of ZenML's runner.

    Attributes and methods are those of `zenml_api.execution.isolation.IsolatedSandboxes`.
    """

    def __init__(self) -> None:
        """Wait until the broker has connected to Modal; raise ModalrunError for a bad token."""
        self.on_end: Callable[[], None] = lambda: None
        self.on_waits: Callable[[dict[str, str]], None] = lambda waits: None
        self.end_of_record: Callable[[str], str | None] = lambda step_run: None
        end = socket.socket(fileno=int(os.environ.pop(contract.BROKER)))
        end.set_inheritable(False)
        self._socket = MessageSocket(end)
        self._sending = threading.Lock()
        self._waits: dict[str, str] = {}
        self._telling = threading.Lock()
        self._numbers = itertools.count(1)
        ready: Future[SandboxExit | None] = Future()
        self._calls: dict[int, Future[SandboxExit | None]] = {0: ready}
        threading.Thread(target=self._read, name="sandboxes", daemon=True).start()
        ready.result()

    def submit(self, step: StepRequest) -> None:
        self._call("submit", step=_plain(step))

    def take_over(self, step: StepRequest) -> None:
        self._call("take_over", step=_plain(step))

    def exit_of(self, step_run: str, *, wait: bool = False) -> SandboxExit | None:
        return self._call("exit_of", step_run=step_run, wait=wait)

    def stop(self, step_run: str) -> None:
        self._call("stop", step_run=step_run)

    def close_run(self, run_id: str) -> None:
        self._call("close_run", run_id=run_id)

    def terminate_all(self) -> None:
        """Terminate every sandbox of the run, also those that are being created."""
        self._call("terminate_all")

    def _call(self, method: str, **arguments: Any) -> SandboxExit | None:
        number = next(self._numbers)
        call = self._calls[number] = Future()
        self._send(Call(number, method, arguments))
        return call.result()

    def _send(self, call: Call) -> None:
        with self._sending:
            self._socket.send(call)

    def _read(self) -> None:
        try:
            while True:
                self._take(adapter(Reply).validate_json(self._socket.receive()))
        except (EOFError, OSError):
            log_line("modalrun: The process that creates sandboxes has ended.")
            leave(contract.EXIT_UNRECORDED)

    def _take(self, reply: Reply) -> None:
        if reply.waits is not None:
            self._waits = reply.waits
        if reply.asks is not None or reply.ended or reply.waits is not None:
            threading.Thread(target=self._respond, args=(reply,), daemon=True).start()
            return
        call = self._calls.pop(reply.number)
        if reply.error is not None:
            call.set_exception(_error(*reply.error))
        elif reply.value is not None:
            kind, exit_code, reason = reply.value
            call.set_result(SandboxExit(ExitKind[kind], exit_code, reason))
        else:
            call.set_result(None)

    def _respond(self, reply: Reply) -> None:
        if reply.ended:
            self.on_end()
            return
        if reply.waits is not None:
            # The last of several threads tells the newest state.
            with self._telling:
                self.on_waits(self._waits)
            return
        status = None
        try:
            status = self.end_of_record(str(reply.asks))
        finally:
            self._send(Call(reply.number, "", value=status))


def _plain(step: StepRequest) -> dict[str, Any]:
    return {**asdict(step), "step_run": str(step.step_run), "run_id": str(step.run_id)}


def _error(name: str, message: str, hint: str | None) -> Exception:
    if name == "KeyError":
        return KeyError(message)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.ModalrunError):
        return kind(message, hint=hint)
    return errors.RunFailedError(f"{name}: {message}")
