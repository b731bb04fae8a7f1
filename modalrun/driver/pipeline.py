"""Runs all steps of a run in this process, in graph order: `pipeline` mode inside the sandbox.

ZenML's stock pipeline entrypoint ignores failure modes and trips over cached steps; this runner
uses ZenML's own step launcher beneath, so that caching, hooks, artifacts and step logs are ZenML's.
"""

from __future__ import annotations

import contextvars
import os
import signal
import threading
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from modalrun.driver import control
from modalrun.driver.process import (
    Terminated,
    buffer_lines,
    leave,
    print_traceback,
    supervisors_reason,
)
from modalrun.driver.scheduler import Action, FailureMode, Scheduler, Skip, Start, State
from modalrun.errors import RunStopped
from modalrun.run import output_tagging
from modalrun.run.contract import (
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_TERMINATED,
    EXIT_UNRECORDED,
    MAX_PARALLELISM,
    RUN_ID,
    TERMINATED_REASON,
)
from modalrun.run.reporting import emit_step_event, log_line, one_line
from modalrun.util import garbage_collection
from modalrun.zenml_api import log_filter

if TYPE_CHECKING:
    from modalrun.zenml_api.execution.steps import StepRunner


STOP_REASON = "the run was asked to stop"


class _Signals:
    """Remembers that SIGTERM came, and interrupts what is going on."""

    def __init__(self) -> None:
        self.terminated = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.terminated = True
        raise Terminated(signal.Signals(signum).name)


def main() -> NoReturn:
    """Run the steps of the run that the environment names, and leave with their outcome."""
    signals = _Signals()
    signal.signal(signal.SIGTERM, signals)
    stop = threading.Event()
    control.listen(stop.set)
    buffer_lines()
    log_filter.hide()
    output_tagging.install()
    code = EXIT_FAILED
    try:
        with garbage_collection.paused():
            from modalrun.zenml_api.execution.steps import StepRunner

            runner = StepRunner(os.environ[RUN_ID])
        code = EXIT_COMPLETED if run(runner, stop) else EXIT_FAILED
    except (Terminated, RunStopped):
        code = EXIT_TERMINATED
    except BaseException:
        traceback.print_exc()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if code != EXIT_COMPLETED and not _record_end(code, stopped=stop.is_set()):
        code = EXIT_UNRECORDED
    leave(code)


def run(runner: StepRunner, stop: threading.Event | None = None) -> bool:
    """Run every step whose turn comes; returns whether all of them succeeded.

    One at a time runs in the main thread, where ZenML's signal handling works. Several at a time
    run in threads, each with a copy of the context that ZenML keeps its state in.

    Args:
        runner: The steps.
        stop: Set from outside when nothing more is to start; what runs then finishes.

    Raises:
        RunStopped: Steps were left out because of `stop`, and none has failed.
    """
    stop = stop or threading.Event()
    limit = int(os.environ.get(MAX_PARALLELISM, "1"))
    scheduler = Scheduler(
        runner.graph,
        mode=FailureMode(runner.failure_mode),
        max_parallelism=limit,
    )
    scheduler.restore(runner.done)
    for step in runner.done:
        emit_step_event(step, "cached")
    walk = _one_by_one if limit == 1 else _side_by_side
    walk(runner, scheduler, limit, stop)
    runner.cleanup()
    states = set(scheduler.states.values())
    if stop.is_set() and State.NOT_RUN in states and State.FAILED not in states:
        raise RunStopped
    return scheduler.succeeded


def _one_by_one(
    runner: StepRunner, scheduler: Scheduler, _limit: int, stop: threading.Event
) -> None:
    actions = [*_stopping(scheduler, stop), *scheduler.start()]
    while starts := _say_skips(actions):
        (step,) = starts
        succeeded = _run_step(runner, step, stop)
        actions = [*_stopping(scheduler, stop), *scheduler.ended(step, succeeded=succeeded)]


def _side_by_side(
    runner: StepRunner, scheduler: Scheduler, limit: int, stop: threading.Event
) -> None:
    running: dict[Future[bool], str] = {}
    pool = ThreadPoolExecutor(limit, thread_name_prefix="step")
    try:
        actions = [*_stopping(scheduler, stop), *scheduler.start()]
        while True:
            for step in _say_skips(actions):
                context = contextvars.copy_context()
                running[pool.submit(context.run, _run_step, runner, step, stop)] = step
            if not running:
                return
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            actions = _stopping(scheduler, stop)
            for future in ended:
                actions += scheduler.ended(running.pop(future), succeeded=future.result())
    finally:
        # After SIGTERM nothing waits for the other steps: the process ends, and they with it.
        pool.shutdown(wait=False, cancel_futures=True)


def _stopping(scheduler: Scheduler, stop: threading.Event) -> list[Action]:
    """What follows from a request to stop, where there is one."""
    return scheduler.stop(STOP_REASON) if stop.is_set() else []


def _say_skips(actions: list[Action]) -> list[str]:
    """Tell of the steps that will not run; returns the steps to start."""
    for action in actions:
        if isinstance(action, Skip):
            log_line(action.reason)
            emit_step_event(action.step, "not run", reason=action.reason)
    return [action.step for action in actions if isinstance(action, Start)]


def _run_step(runner: StepRunner, name: str, stop: threading.Event) -> bool:
    """Run one step with its retries, and mark what it prints as its own."""
    with output_tagging.tagged(name):
        return _try_step(runner, name, stop)


def _try_step(runner: StepRunner, name: str, stop: threading.Event) -> bool:
    """Run one step with its retries. ZenML's own retry loop would also retry a termination."""
    retries, delay, backoff = runner.retry_policy(name)
    for attempt in range(retries + 1):
        emit_step_event(name, "running", attempt=attempt + 1)
        try:
            succeeded = runner.launch(name)
            emit_step_event(name, "completed" if succeeded else "failed", attempt=attempt + 1)
            return succeeded
        except Exception as error:
            print_traceback(error)
            reason = one_line(error)
        if attempt == retries or stop.is_set():
            emit_step_event(name, "failed", attempt=attempt + 1, reason=reason)
            break
        emit_step_event(name, "retrying", attempt=attempt + 1, reason=reason)
        log_line(f"Step `{name}` failed; retry {attempt + 1} of {retries} in {delay:g} s.")
        time.sleep(delay)
        delay *= backoff
    return False


def _record_end(code: int, *, stopped: bool) -> bool:
    """Leave nothing `running` in ZenML; returns whether that worked."""
    try:
        from modalrun.zenml_api.records.runs import finalize_run

        reason = "The run was asked to stop." if stopped else _end_reason(code)
        finalize_run(os.environ[RUN_ID], reason, stopped=stopped and code == EXIT_TERMINATED)
    except BaseException:
        # The supervisor tries again in a process that is not in the middle of anything.
        traceback.print_exc()
        return False
    return True


def _end_reason(code: int) -> str:
    """Why the run ends, in the supervisor's words where it said something."""
    ours = TERMINATED_REASON if code == EXIT_TERMINATED else "The run failed."
    return supervisors_reason() or ours


if __name__ == "__main__":
    main()
