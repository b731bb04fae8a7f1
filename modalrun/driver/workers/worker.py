"""Run steps in a worker: a fork of the runner of a `pipeline` run, which alone runs user code.

It connects to ZenML, calls the init hook before its first step, runs one step after the other in
its main thread, and calls the cleanup hook at its end. The runner sends requests (`Request`), and
the worker answers each.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from modalrun.driver.processes.messages import MessageSocket
from modalrun.driver.processes.process import Signals, flush_streams, leave, print_traceback
from modalrun.errors import RunStopped
from modalrun.run import contract
from modalrun.run.failure import Failure
from modalrun.run.manifest import Graph
from modalrun.run.reporting import error_line
from modalrun.util.environment import restored_environment

if TYPE_CHECKING:
    from modalrun.zenml_api.execution.pipeline_steps import PipelineSteps

_RECORDING = ("fail", "stop", "finalize")
"""The methods that only change records, and can be called again."""


@dataclass(frozen=True)
class StepEnd:
    """How one attempt at a step has ended.

    Attributes:
        state: As ZenML records it; "running" if nothing final is recorded, "not run" if the run
            has failed before.
        reason: Why it did not complete.
    """

    state: Literal["completed", "failed", "stopped", "running", "not run"]
    reason: str | None = None


DELETED = StepEnd("stopped", contract.DELETED_REASON)
"""How whatever a worker was asked for ends once ZenML has the run no longer."""


@dataclass(frozen=True)
class Request:
    """Call a method of `Worker`.

    Attributes:
        method: Its name; empty to confirm that a step may begin.
        arguments: Plain values.
        token: What the answer has to repeat: what an earlier step has left can't know it.
    """

    method: str
    arguments: Sequence[Any] = ()
    token: str = ""


@dataclass(frozen=True)
class Answer:
    """The result of a request. User code in the worker can send one too.

    Attributes:
        value: What the method has returned.
        error: Why it has failed, in one line.
        last: Whether the worker is of no more use: a step has closed its output.
        begun: Whether this is no result yet: the init hook is done, and the step begins.
        token: The request's.
    """

    value: Graph | StepEnd | None = None
    error: str | None = None
    last: bool = False
    begun: bool = False
    token: str = ""


def main(connection: MessageSocket) -> NoReturn:
    """Answer requests until the runner closes the connection."""
    # Only the runner's own exit code counts.
    os.environ.pop(contract.EXIT_CODE_FILE, None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    worker = Worker(connection)
    streams = _streams()
    with contextlib.suppress(EOFError, OSError):
        while True:
            request = worker.request = Request(**json.loads(connection.receive()))
            try:
                answer = Answer(worker.answer(request))
            except RunStopped:
                answer = Answer(StepEnd("stopped"))
            except BaseException as error:
                if worker.run_deleted():
                    answer = Answer(DELETED)
                else:
                    print_traceback(error)
                    answer = Answer(error=error_line(error))
            # The runner takes what it can read now for the output of this request.
            flush_streams()
            connection.send(replace(answer, last=_streams() != streams, token=request.token))
    leave(contract.EXIT_COMPLETED)


class Worker:
    """The requests that a worker answers.

    Attributes:
        request: The current one.
    """

    request: Request

    def __init__(self, connection: MessageSocket) -> None:
        self._connection = connection
        self._run_id = os.environ[contract.RUN_ID]
        self._loaded: PipelineSteps | None = None
        self._ready = False
        self._connected = False

    def answer(self, request: Request) -> Any:
        """Call the method that a request names."""
        from modalrun.zenml_api.retry import open_store, while_database_fails

        if not self._connected:
            open_store(in_sandbox=True)
            self._connected = True
        call = functools.partial(getattr(self, request.method), *request.arguments)
        return while_database_fails(call) if request.method in _RECORDING else call()

    def run_deleted(self) -> bool:
        """Return whether nothing can be recorded any more."""
        from modalrun.zenml_api.records.run_access import deleted

        return deleted(self._run_id)

    def graph(self) -> Graph:
        """Load the run, and describe it.

        Raises:
            RunStopped: The run was over already.
        """
        if self._steps.failed_before:
            # Its submission had given this sandbox up.
            raise RunStopped
        return self._steps.graph

    def run(self, name: str) -> StepEnd:
        """Run one step once; the first time, call the init hook before."""
        if not self._ready:
            self._steps.initialize()
            self._ready = True
        self._connection.send(Answer(begun=True, token=self.request.token))
        # The runner has taken what the init hook printed.
        self._connection.receive()
        reasons: list[str] = []

        def failed(error: BaseException) -> None:
            print_traceback(error)
            reasons.append(str(Failure.of(error)))

        signals = Signals()
        signal.signal(signal.SIGTERM, signals)
        with _own_surroundings():
            state = self._steps.run(name, signals, failed)
        return StepEnd(state, reasons[0] if reasons else None)

    def fail(
        self, name: str, reason: str, attempt: int, final: bool, lines: Sequence[str]
    ) -> StepEnd:
        """Record the failure of a step whose worker has died; return how its record ends.

        It has its own reason if it had failed before a hook ended the worker.
        """
        from modalrun.zenml_api.records.step_records import fail_step

        record = fail_step(self._run_id, name, reason, attempt=attempt, final=final, lines=lines)
        if record is not None and record.successful:
            return StepEnd("completed")
        recorded = record.failure if record is not None else None
        return StepEnd("failed", str(recorded or reason))

    def stop(self, name: str, reason: str) -> None:
        """Record that a step whose worker was ended has stopped."""
        from modalrun.zenml_api.records.step_records import stop_step

        stop_step(self._run_id, name, reason)

    def cleanup(self) -> None:
        """Call the cleanup hook, if this worker has called the init hook."""
        if self._ready:
            self._steps.cleanup()

    def finalize(self, reason: str, stopped: bool, lines: Mapping[str, Sequence[str]]) -> None:
        """Leave no `running` record in ZenML; `lines` are the last ones of steps."""
        from modalrun.zenml_api.records.updates import finalize_run

        finalize_run(self._run_id, reason, stopped=stopped, lines=lines)

    @property
    def _steps(self) -> PipelineSteps:
        if self._loaded is None:
            from modalrun.zenml_api.execution.pipeline_steps import PipelineSteps

            self._loaded = PipelineSteps(self._run_id)
        return self._loaded


def _streams() -> tuple[tuple[int, int], ...] | None:
    """Return what the standard streams lead to; None if one of them is closed."""
    try:
        found = [os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr)]
    except (OSError, ValueError, AttributeError):
        return None
    return tuple((one.st_dev, one.st_ino) for one in found)


@contextlib.contextmanager
def _own_surroundings() -> Iterator[None]:
    """Undo what a step changes of the environment, the working folder and the alarm clock."""
    folder = os.getcwd()  # noqa: PTH109 - a text.
    try:
        with restored_environment():
            yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        signal.alarm(0)
