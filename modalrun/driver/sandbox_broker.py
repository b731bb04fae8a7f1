"""Create the step sandboxes of a dynamic run, with the Modal token that its process must not have.

`python -m modalrun.driver.sandbox_broker SOCKET MANIFEST` runs beside the process of a dynamic
pipeline, in which user code runs. That process sends requests on a socket (`sandbox_client`): run
this isolated step, how did it end, stop it. The broker creates nothing but step sandboxes of this
run. On SOCKET the supervisor (`broker_link`) sends it the socket of each process that continues the
run, and has the step sandboxes terminated in the end.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modalrun.driver.broker_link import CONNECT, TERMINATE
from modalrun.driver.graph.isolated_steps import IsolatedSteps
from modalrun.driver.processes import privileges
from modalrun.driver.processes.messages import Call, MessageSocket, Reply
from modalrun.driver.processes.process import buffer_lines, die_with_parent
from modalrun.errors import ModalrunError, UsageError
from modalrun.plan.isolated_step import IsolatedStep, plan_isolated_step
from modalrun.run import contract
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import log_line, prove_events
from modalrun.run.sandbox_exit import SandboxExit
from modalrun.run.step_request import StepRequest
from modalrun.run.values import adapter
from modalrun.util import garbage_collection


class Broker:
    """Serve the calls of one process."""

    def __init__(self, end: MessageSocket, manifest: RunManifest, isolated: IsolatedSteps) -> None:
        self._socket = end
        self._manifest = manifest
        self._sending = threading.Lock()
        self._questions: dict[int, Future[str | None]] = {}
        self._methods: dict[str, Callable[..., SandboxExit | None]] = {
            "submit": lambda step: isolated.submit(self._plan(step)),
            "take_over": lambda step: isolated.take_over(self._plan(step)),
            "exit_of": isolated.exit_of,
            "stop": isolated.stop,
            "close_run": isolated.close_run,
            "terminate_all": isolated.terminate_all,
        }
        self._closed = False
        isolated.on_end = lambda: self._send(Reply(ended=True))
        isolated.on_waits = lambda waits: self._send(Reply(waits=waits))
        isolated.end_of_record = self._ask

    def serve(self) -> None:
        """Serve until the process has ended."""
        self._send(Reply())
        try:
            while True:
                call = adapter(Call).validate_json(self._socket.receive())
                if not call.method:
                    if (question := self._questions.pop(call.number, None)) is not None:
                        question.set_result(call.value)
                    continue
                # Calls wait, for a slot or for the end of a step.
                threading.Thread(target=self._answer, args=(call,), daemon=True).start()
        except ValidationError as error:
            log_line(f"modalrun: A request for a sandbox makes no sense: {error.errors()[0]}")
        except (EOFError, OSError):
            pass
        finally:
            self._closed = True
            # The next process asks ZenML itself.
            for question in list(self._questions.values()):
                question.set_result(None)
            self._socket.close()

    def _plan(self, step: Any) -> IsolatedStep:
        request = adapter(StepRequest).validate_python(step)
        return plan_isolated_step(self._manifest, request, source_root=Path.cwd())

    def _answer(self, call: Call) -> None:
        try:
            if call.method not in self._methods:
                raise UsageError(f"There is no request '{call.method}'.")
            end = self._methods[call.method](**call.arguments)
            value = (end.kind.name, end.exit_code, end.reason) if end is not None else None
            reply = Reply(call.number, value)
        except ModalrunError as error:
            reply = Reply(call.number, error=(type(error).__name__, error.message, error.hint))
        except Exception as error:
            reply = Reply(call.number, error=(type(error).__name__, str(error), None))
        self._send(reply)

    def _ask(self, step_run: str) -> str | None:
        question: Future[str | None] = Future()
        number = id(question)
        self._questions[number] = question
        if self._closed:
            return None
        self._send(Reply(number, asks=step_run))
        return question.result()

    def _send(self, reply: Reply) -> None:
        # If the other process has ended, so does this one.
        with self._sending, contextlib.suppress(OSError):
            self._socket.send(reply)


def main() -> None:
    """Connect to Modal, and serve until the supervisor ends."""
    die_with_parent()
    buffer_lines()
    prove_events()
    privileges.hide_process()
    privileges.hide_variables(contract.MODAL_TOKEN)
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    isolated: IsolatedSteps | Exception
    try:
        with garbage_collection.paused():
            manifest = RunManifest.from_json(Path(sys.argv[2]).read_text(encoding="utf-8"))
            isolated = IsolatedSteps(manifest)
    except Exception as error:
        traceback.print_exc()
        isolated = error
    # User code can write there.
    privileges.leave_source()
    while True:
        asked, descriptors, *_ = socket.recv_fds(supervisor, 1, 1)
        if asked == CONNECT:
            end = MessageSocket(socket.socket(fileno=descriptors[0]))
            if isinstance(isolated, Exception):
                end.send(Reply(error=(type(isolated).__name__, str(isolated), None)))
                continue
            isolated.reopen()
            serve = Broker(end, manifest, isolated).serve
            threading.Thread(target=serve, daemon=True).start()
        elif asked == TERMINATE:
            if isinstance(isolated, IsolatedSteps):
                isolated.terminate_all()
            supervisor.sendall(TERMINATE)
        else:
            return


if __name__ == "__main__":
    main()
