"""A run that goes -> its outcome, while somebody looks on who may leave, or end it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Literal, Protocol

from modalrun.errors import AuthenticationError, ConnectionLostError, ModalrunError, RunStoppedError
from modalrun.modal_api import Connection, RunningSandbox
from modalrun.modal_api.termination import RunSandboxes
from modalrun.observe.cost import spending
from modalrun.observe.log_stream import LogStream
from modalrun.run.contract import EXIT_KILLED
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import Item, LogLine
from modalrun.run.outcome import (
    PAUSED,
    Outcome,
    answers,
    verdict,
)
from modalrun.run.progress import RunProgress, StepProgress
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_exit import ExitKind, SandboxExit, read_exit
from modalrun.util import interrupts

OnInterrupt = Literal["ask", "stop", "detach"]
"""What Ctrl-C and SIGTERM do: ask on the terminal, end the run, or leave it to itself."""


class StopRun(Protocol):
    """Stop a run by force."""

    def __call__(self, run_id: str, sandboxes: RunSandboxes, *, seconds: float) -> object:
        """Terminate every sandbox within `seconds` and record the run as stopped."""


STOP_SECONDS = 7.0
"""How long the end of a run is waited for after a signal. CI systems kill after 7.5 to 10 s."""

QUESTION = "s: stop the run   d: detach, it goes on   g: go on"


class RunObserver(Protocol):
    """Who looks on while a run goes."""

    def phase(self, text: str) -> None:
        """What is being waited for now, until something else is shown."""

    def say(self, text: str, style: str | None = None) -> None:
        """A line of talk."""

    def begin(self, board: RunProgress) -> None:
        """The run's output follows; `board` says from now on how its steps stand."""

    def event(self, event: StepEvent) -> None:
        """The board has changed by this event."""

    def line(self, line: LogLine) -> None:
        """A line of the run's output. Raises BrokenPipeError when nobody reads it any more."""

    def question(self, text: str | None) -> None:
        """A question to be answered by a key, until it is None again."""


@dataclass(frozen=True)
class RunHandle:
    """A run whose run sandbox Modal has accepted.

    Attributes:
        run_id: ZenML's run id.
        zenml_url: Its page on ZenML's dashboard, where there is one.
        plan: Its sandboxes.
        steps: All steps of the pipeline, parents before children.
        sandbox: The run sandbox.
        sandboxes: All sandboxes of the run.
        connection: The connection to Modal.
        recording: Stores in ZenML where the sandbox is; others find the run by it.
        resumed: Whether an earlier driver has run a part of it, which isn't shown again.
    """

    run_id: str
    zenml_url: str | None
    plan: RunPlan
    steps: tuple[str, ...]
    sandbox: RunningSandbox
    sandboxes: RunSandboxes
    connection: Connection
    recording: threading.Thread
    resumed: bool = False


@dataclass(frozen=True)
class _Signal:
    number: int


@dataclass(frozen=True)
class _Key:
    key: str


_Message = _Signal | _Key | SandboxExit | BaseException
"""What following waits for: all of it comes through one queue."""


def accepted(run: RunHandle) -> Outcome:
    """What there is to say of a run that nobody waits for. Returns when others can find it."""
    run.recording.join()
    return Outcome(
        exit_code=0,
        headline="Run accepted; it goes on by itself.",
        details=(*_links(run), *commands(run.run_id)),
        steps=(),
        run_id=run.run_id,
        accepted=True,
    )


def follow(
    run: RunHandle,
    watcher: RunObserver,
    on_interrupt: OnInterrupt,
    *,
    stop: StopRun,
    interrupted: int | None = None,
) -> Outcome:
    """Show a run's output until it has ended, and settle its record.

    Args:
        run: The run.
        watcher: Gets its output.
        on_interrupt: What signals do. A second one always leaves at once.
        stop: Ends the run by force.
        interrupted: A signal that has come already.

    Raises:
        KeyboardInterrupt, Interrupted: Somebody chose to leave; what becomes of the run was said.
        BrokenPipeError: Nobody reads the output any more; the run goes on.
        ModalrunError: The run's end is not known.
    """
    board = RunProgress(run.steps)
    inbox: SimpleQueue[_Message] = SimpleQueue()
    began = time.time()
    with interrupts.listening(lambda number: inbox.put(_Signal(number))):
        if interrupted is not None:
            inbox.put(_Signal(interrupted))
        watcher.begin(board)
        output = _Output(board, watcher, inbox)
        since = began if run.resumed else 0.0
        _in_background(lambda: output.all_of(run, since), inbox)
        watcher.phase("Waiting for the first step")
        end = _until_the_end(run, watcher, inbox, on_interrupt, stop)
    with redirect_stdout(sys.stderr):
        if isinstance(end, _Signal):
            return replace(
                _outcome(run, board, read_exit(EXIT_KILLED), began),
                exit_code=128 + end.number,
                headline="Run stopped, as the interrupt asked for.",
            )
        return _outcome(run, board, end, began)


class _Output:
    """The output of a run's sandboxes on its way to the board and the watcher."""

    def __init__(
        self, board: RunProgress, watcher: RunObserver, inbox: SimpleQueue[_Message]
    ) -> None:
        self._board = board
        self._watcher = watcher
        self._inbox = inbox
        self._left = False

    def all_of(self, run: RunHandle, since: float) -> SandboxExit:
        """Pass everything on until the run sandbox has ended; returns how.

        Args:
            run: The run.
            since: Steps that had ended before, in seconds since the epoch, are not shown again.

        Raises:
            ConnectionLostError: The connection is lost for good; the run may still be going.
        """
        follower = LogStream(run.connection, run.sandbox.id, since=since)
        reader = threading.Thread(target=self._read, args=(follower,), daemon=True)
        reader.start()
        try:
            end = run.sandbox.wait()
            if not (_is_orphaned(run, end) and _living_steps(run)):
                reader.join()
        finally:
            follower.close()
        return end

    def _read(self, follower: LogStream) -> None:
        try:
            for batch in follower:
                self._pass(batch)
        except BaseException as error:
            self._inbox.put(error)

    def _pass(self, items: Iterable[Item]) -> None:
        for item in items:
            if isinstance(item, StepEvent):
                self._board.apply(item)
                self._watcher.event(item)
            elif isinstance(item, LogLine) and not self._left:
                try:
                    self._watcher.line(item)
                except BrokenPipeError as error:
                    self._left = True
                    self._inbox.put(error)


def _in_background(action: Callable[[], SandboxExit], inbox: SimpleQueue[_Message]) -> None:
    """Do something in a thread that nothing waits for; its result or its error goes to the inbox.

    All that talks to Modal happens there: the main thread is free for signals, which the SDK would
    otherwise swallow or turn into an end of its own.
    """

    def act() -> None:
        try:
            inbox.put(action())
        except BaseException as error:
            inbox.put(error)

    threading.Thread(target=act, daemon=True).start()


def _until_the_end(
    run: RunHandle,
    watcher: RunObserver,
    inbox: SimpleQueue[_Message],
    on_interrupt: OnInterrupt,
    stop: StopRun,
) -> SandboxExit | _Signal:
    """Wait for the end; a signal instead of it where that has ended the run."""
    asking = ExitStack()
    asked: _Signal | None = None
    with asking:
        while True:
            message = inbox.get()
            if isinstance(message, SandboxExit):
                return message
            if isinstance(message, BrokenPipeError):
                _say_detached(run, watcher, "Nobody reads the output any more.")
                raise message
            if isinstance(message, BaseException):
                raise _lost(message, run)
            if isinstance(message, _Signal):
                choice = _choice(on_interrupt, message.number)
                if asked is not None:
                    asking.close()
                    _say_detached(run, watcher, "Left at once.")
                    raise interrupts.exception(message.number)
                if choice == "ask":
                    asked = message
                    watcher.question(QUESTION)
                    asking.callback(watcher.question, None)
                    asking.enter_context(
                        interrupts.keys(sys.stdin.fileno(), lambda key: inbox.put(_Key(key)))
                    )
                    continue
            else:
                answers: dict[str, str] = {
                    **dict.fromkeys("sS", "stop"),
                    **dict.fromkeys(("d", "D", ""), "detach"),
                    **dict.fromkeys("gG\n\r\x1b", "go on"),
                }
                choice = answers.get(message.key, "ask")
                if choice == "ask" or asked is None:
                    continue
                asking.close()
                message, asked = asked, None
                if choice == "go on":
                    continue
            if choice == "detach":
                _say_detached(run, watcher, "Detached.")
                raise interrupts.exception(message.number)
            _stop(run, watcher, inbox, message.number, stop)
            return message


def _choice(on_interrupt: OnInterrupt, number: int) -> str:
    """What a signal means. Nobody is there to answer a SIGTERM; it is no wish to end the run."""
    if on_interrupt == "ask" and number != signal.SIGINT:
        return "detach"
    return on_interrupt


def _stop(
    run: RunHandle,
    watcher: RunObserver,
    inbox: SimpleQueue[_Message],
    number: int,
    stop: StopRun,
) -> None:
    """End the run by force, within the grace time of whoever sent the signal.

    Raises:
        KeyboardInterrupt, Interrupted: A second signal came, or the time was up.
    """
    watcher.say("Stopping the run ...", "yellow")
    done: SimpleQueue[_Message] = inbox

    def act() -> SandboxExit:
        with redirect_stdout(sys.stderr):
            run.recording.join()
            stop(run.run_id, run.sandboxes, seconds=STOP_SECONDS)
        return _STOPPED

    _in_background(act, done)
    timer = threading.Timer(STOP_SECONDS, lambda: inbox.put(TimeoutError()))
    timer.daemon = True
    timer.start()
    while True:
        message = inbox.get()
        if message is _STOPPED:
            timer.cancel()
            return
        if isinstance(message, _Signal | TimeoutError):
            why = "The end of the run is not confirmed yet."
        elif isinstance(message, ModalrunError):
            why = f"The run may not have ended: {message.message}"
        else:
            # The watching has ended, as it should.
            continue
        watcher.say(why, "yellow")
        for label, command in commands(run.run_id):
            watcher.say(f"  {label:<8} {command}")
        raise interrupts.exception(number)


_STOPPED = read_exit(EXIT_KILLED)


def _say_detached(run: RunHandle, watcher: RunObserver, why: str) -> None:
    """Say that the run goes on and how to look; returns when others can find it."""
    try:
        watcher.say("")
        watcher.say(f"{why} The run {run.run_id} goes on in its sandbox.", "yellow")
        for label, command in commands(run.run_id):
            watcher.say(f"  {label:<8} {command}")
    except BrokenPipeError:
        # Not even stderr is read any more.
        pass
    run.recording.join(STOP_SECONDS)


def _lost(error: BaseException, run: RunHandle) -> BaseException:
    if isinstance(error, ConnectionLostError):
        return ConnectionLostError(
            f"{error.message} The run {run.run_id} may still be going.",
            hint=f"Look with 'modalrun status {run.run_id}'.",
        )
    return error


def commands(run_id: str) -> list[tuple[str, str]]:
    """The commands that matter for a run that goes on."""
    return [
        ("status", f"modalrun status {run_id}"),
        ("logs", f"modalrun logs --follow {run_id}"),
        ("stop", f"modalrun stop {run_id}"),
    ]


def _links(run: RunHandle) -> list[tuple[str, str]]:
    links = [("run", run.run_id)]
    if run.zenml_url:
        links.append(("zenml", run.zenml_url))
    if run.sandbox.url:
        links += [
            ("app", f"https://modal.com/id/{run.sandbox.app_id}"),
            ("sandbox", run.sandbox.url),
        ]
    return links


def _outcome(run: RunHandle, board: RunProgress, end: SandboxExit, began: float) -> Outcome:
    """How the run ended, by ZenML's record, which is settled here where nobody else could."""
    from modalrun.zenml_api.records import queries, runs

    try:
        if _is_orphaned(run, end) and _may_go_on(queries.by_id(run.run_id)):
            return _without_driver(run, board)
        # A sandbox that was killed as a whole could not record its own end.
        runs.finalize_run(
            run.run_id, f"The run sandbox ended ({end.kind.label}, exit code {end.exit_code})."
        )
        record, steps = queries.read(run.run_id)
    except ConnectionLostError as error:
        raise ConnectionLostError(
            f"The run sandbox ended ({end.kind.label}), but ZenML can't be asked how:"
            f" {error.message}",
            hint=f"Run 'modalrun status {run.run_id}' when the server is back.",
        ) from error
    except AuthenticationError as error:
        raise AuthenticationError(
            f"The run sandbox ended ({end.kind.label}), but ZenML doesn't say how: {error.message}",
            hint=f"{error.hint} Then 'modalrun status {run.run_id}' tells how the run ended, and"
            f" 'modalrun reconcile {run.run_id}' sets its record right if need be.",
        ) from error
    failed = [step.name for step in steps if step.status == "failed"]
    timeout = run.plan.run_sandbox.timeout
    code, headline = verdict(end, record.status, failed, timeout)
    details = [*_links(run), *commands(run.run_id)[:1]]
    details.append(("logs", f"modalrun logs {run.run_id}"))
    details += spending(run.plan, board, run.sandbox.gpu, began, time.time(), resumed=run.resumed)
    if end.kind is ExitKind.TIMED_OUT:
        details.append(("timeout", "the setting 'timeout' counts from the start of the sandbox"))
    if record.status == PAUSED:
        details += zip(
            ("answer", "resume"), answers(run.run_id, run.plan.settings.mode), strict=True
        )
    recorded = {step.name: step for step in steps}
    return Outcome(
        code, headline, tuple(details), _steps(run.steps, recorded, board), run_id=run.run_id
    )


def _is_orphaned(run: RunHandle, end: SandboxExit) -> bool:
    """Whether the driver was ended from outside, so that another one can take over."""
    return run.plan.settings.mode == "per_step" and end.exit_code == EXIT_KILLED


def _may_go_on(record: RunRecord) -> bool:
    """Whether a run is not over; one that somebody is ending by force is, in a moment."""
    return not record.finished and record.status != "stopping"


def _living_steps(run: RunHandle) -> int:
    """How many step sandboxes run; 0 where Modal can't be asked."""
    try:
        return len(run.sandboxes.running("step"))
    except ModalrunError:
        return 0


def _without_driver(run: RunHandle, board: RunProgress) -> Outcome:
    """The run sandbox was killed from outside: its steps may live, and a new driver can go on."""
    living = _living_steps(run)
    what = f" (step sandboxes that still run: {living})" if living else ""
    return Outcome(
        exit_code=RunStoppedError.exit_code,
        headline=f"The run's driver was ended from outside{what}. The run is not over.",
        details=(
            *_links(run),
            ("resume", f"modalrun resume {run.run_id}"),
            *commands(run.run_id),
        ),
        steps=_steps(run.steps, {}, board),
        run_id=run.run_id,
    )


def _steps(
    names: Iterable[str], recorded: dict[str, StepRecord], board: RunProgress
) -> tuple[StepProgress, ...]:
    """Each step by ZenML's record; by the driver's word where there is none."""
    # Which steps a dynamic pipeline has, only the record of its run says.
    return tuple(
        board.rows.get(name, StepProgress(name)).recorded_as(recorded.get(name))
        for name in dict.fromkeys((*names, *recorded))
    )
