"""Attach to a run: show its output until it ends, or the user stops it or detaches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Protocol

from modalrun.errors import ConnectionLostError, ModalrunError
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.modal_api.sandboxes.termination import SandboxGroup
from modalrun.observe.handle import RunHandle, RunObserver
from modalrun.observe.interrupt_prompt import InterruptPrompt, OnInterrupt, ReadKeys, terminal_keys
from modalrun.observe.log_stream import LogStream
from modalrun.observe.outcome import derive_outcome, driver_was_killed, running_steps
from modalrun.run.contract import EXIT_KILLED
from modalrun.run.events import Idle, Redraw, StepEvent
from modalrun.run.log_lines import Item, LogLine, RunLines
from modalrun.run.outcome import Outcome
from modalrun.run.progress import RunProgress
from modalrun.run.sandbox_exit import SandboxExit, read_exit
from modalrun.util import interrupts
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

STOP_SECONDS = 7.0
"""How long a stop after a signal may take. CI systems kill 7.5 to 10 s after their signal."""

_RECORD_SECONDS = 1.0
"""How long a stop waits until ZenML has the sandbox on record: its server may be away."""

_CANCEL_SECONDS = 1.0
"""How long to wait for the end of a cancelled call to Modal."""


class StopRun(Protocol):
    """Stop a run by force."""

    def __call__(self, run_id: str, sandboxes: SandboxGroup, *, seconds: float) -> object:
        """Terminate every sandbox within `seconds` and record the run as stopped."""


@dataclass(frozen=True)
class _Signal:
    number: int


@dataclass(frozen=True)
class _Key:
    key: str


class _Stopped:
    """The run was stopped, as a signal asked for."""


_Message = _Signal | _Key | _Stopped | SandboxExit | BaseException | None
"""None wakes the main thread, so that it notices a signal."""


def follow(
    run: RunHandle,
    observer: RunObserver,
    on_interrupt: OnInterrupt,
    *,
    stop: StopRun,
    interrupted: int | None = None,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
    read_keys: ReadKeys = terminal_keys,
) -> Outcome:
    """Attach to a run and return its outcome; record its end where it could not itself.

    Args:
        on_interrupt: What signals do. A second one always detaches at once.
        interrupted: A signal that has arrived before.
        read_keys: Reads the keys that answer a question.

    Raises:
        KeyboardInterrupt, Interrupted: The user has detached; the observer has got the commands
            that continue with the run.
        BrokenPipeError: The reader of the output has gone; the run continues.
        ModalrunError: The run's end is not known.
    """
    attachment = _Attachment(run, observer, stop)
    with interrupts.listening(attachment.receive_signal), interrupts.waking(attachment.wake):
        if interrupted is not None:
            attachment.receive_signal(interrupted)
        observer.begin(attachment.progress)
        attachment.start(modal)
        observer.phase("Waiting for the first step")
        end = attachment.wait(on_interrupt, read_keys)
    with redirect_stdout(sys.stderr):
        progress = attachment.progress
        if isinstance(end, SandboxExit):
            # Without all of it, the run could not be resumed.
            run.recording.join()
            return derive_outcome(run, progress, end, zenml)
        return replace(
            derive_outcome(run, progress, read_exit(EXIT_KILLED), zenml),
            exit_code=128 + end.number,
            headline="Run stopped because of the interrupt.",
        )


class _Attachment:
    """Pass the output of a run on from other threads; wait for its end in the main thread.

    All calls to Modal are in other threads: the SDK swallows signals in its own calls, or turns
    them into errors.
    """

    def __init__(self, run: RunHandle, observer: RunObserver, stop: StopRun) -> None:
        self.progress = RunProgress(run.steps)
        self._run = run
        self._observer = observer
        self._stop_run = stop
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._reader_gone = False

    def receive_signal(self, number: int) -> None:
        """Queue a signal; reentrant, as it is called in signal handlers."""
        self._inbox.put(_Signal(number))

    def wake(self) -> None:
        """Have the main thread look for signals."""
        self._inbox.put(None)

    def start(self, modal: ModalGateway) -> None:
        """Start to pass on the output of all steps that had not ended before."""
        streams = modal.log_streams(self._run.connection, self._run.run_id)
        sandbox, run = self._run.sandbox.id, self._run
        lines = RunLines(sandbox, graph=None if run.plan.dynamic else run.steps)
        stream = LogStream(streams, sandbox, lines=lines, ended=run.ended)
        reader = self._start_background(lambda: self._read(stream))

        def wait() -> SandboxExit:
            try:
                end = self._run.sandbox.wait()
                if not (
                    driver_was_killed(self._run, end) and running_steps(self._run, self.progress)
                ):
                    reader.join()
                return end
            finally:
                stream.close()

        self._waiter = self._start_background(wait)

    def wait(self, on_interrupt: OnInterrupt, read_keys: ReadKeys) -> SandboxExit | _Signal:
        """Wait for the end of the run; return the signal if one has stopped it."""
        prompt = InterruptPrompt(
            on_interrupt,
            show=lambda text: _soon(lambda: self._observer.question(text)),
            on_key=lambda key: self._inbox.put(_Key(key)),
            read_keys=read_keys,
        )
        try:
            while True:
                message = self._inbox.get()
                if isinstance(message, SandboxExit):
                    return message
                if isinstance(message, BaseException):
                    raise self._connection_error(message)
                decision = None
                if isinstance(message, _Signal):
                    decision = prompt.signal(message.number)
                elif isinstance(message, _Key):
                    decision = prompt.key(message.key)
                if decision == "stop":
                    self._stop(prompt.number)
                    return _Signal(prompt.number)
                if decision is not None:
                    self._report_detached(
                        "Detached." if decision == "detach" else "Detached at once."
                    )
                    raise interrupts.exception(prompt.number)
        except BaseException:
            self._run.sandbox.cancel_wait()
            self._waiter.join(_CANCEL_SECONDS)
            raise
        finally:
            prompt.close()

    def _start_background(self, action: Callable[[], _Message | None]) -> threading.Thread:
        """Run an action in a background thread; queue what it returns or raises."""

        def act() -> None:
            try:
                message = action()
            except BaseException as error:
                message = error
            if message is not None:
                self._inbox.put(message)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    def _read(self, stream: LogStream) -> None:
        for batch in stream:
            self._show(batch)

    def _show(self, items: Iterable[Item]) -> None:
        for item in items:
            if isinstance(item, StepEvent | Idle | Redraw):
                self.progress.apply(item)
            if isinstance(item, StepEvent | Redraw):
                self._observer.event(item)
            elif isinstance(item, LogLine) and not self._reader_gone:
                try:
                    self._observer.line(item)
                except BrokenPipeError as error:
                    self._reader_gone = True
                    self._inbox.put(error)

    def _stop(self, number: int) -> None:
        """Stop the run by force, within the grace period of the signal's sender.

        Raises:
            KeyboardInterrupt, Interrupted: A second signal came, or the time was up.
        """

        def act() -> _Stopped:
            with redirect_stdout(sys.stderr):
                self._run.recording.join(_RECORD_SECONDS)
                left = STOP_SECONDS - _RECORD_SECONDS
                self._stop_run(self._run.run_id, self._run.sandboxes, seconds=left)
            return _Stopped()

        self._start_background(act)
        _soon(lambda: self._observer.say("Stopping the run ...", "yellow"))
        timer = threading.Timer(STOP_SECONDS, lambda: self._inbox.put(TimeoutError()))
        timer.daemon = True
        timer.start()
        while True:
            message = self._inbox.get()
            if isinstance(message, _Stopped):
                timer.cancel()
                return
            if isinstance(message, _Signal | TimeoutError):
                text = "The end of the run is not confirmed yet."
            elif isinstance(message, ModalrunError):
                text = f"The run may not have ended: {message.message}"
            else:
                # The output has ended, as it should.
                continue
            _soon(lambda text=text: self._report(text))  # type: ignore[misc]
            raise interrupts.exception(number)

    def _report_detached(self, text: str) -> None:
        """Report that the run continues; return when other processes can find it."""

        def report() -> None:
            self._observer.say("")
            self._report(f"{text} The run {self._run.run_id} continues in its sandbox.")

        # The reader of stderr may have gone, too.
        with suppress(BrokenPipeError):
            _soon(report)
        self._run.recording.join(STOP_SECONDS)

    def _report(self, text: str) -> None:
        self._observer.say(text, "yellow")
        for label, command in self._run.commands:
            self._observer.say(f"  {label:<8} {command}")

    def _connection_error(self, error: BaseException) -> BaseException:
        if isinstance(error, BrokenPipeError):
            self._report_detached("The reader of the output has gone.")
        if not isinstance(error, ConnectionLostError):
            return error
        run_id = self._run.run_id
        return ConnectionLostError(
            f"{error.problem} The run {run_id} may still be going.",
            hint=f"Look with 'modalrun status {run_id}'.",
        )


def _soon(show: Callable[[], None]) -> None:
    """Show something after a signal, unless nobody reads the output."""
    interrupts.within(interrupts.OUTPUT_SECONDS, show)
