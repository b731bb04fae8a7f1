"""Run all steps of a static pipeline in this process, in graph order: `pipeline` mode.

ZenML's stock pipeline entrypoint ignores failure modes and fails on cached steps. This runner uses
ZenML's step launcher, so that caching, hooks, artifacts and step logs are ZenML's own.
"""

from __future__ import annotations

import contextvars
import functools
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
from modalrun.driver.scheduler import Action, FailureMode, Scheduler, Skip, State
from modalrun.errors import RunStopped
from modalrun.run import contract, output_tagging
from modalrun.run.reporting import emit_step_event, log_line, one_line
from modalrun.util import garbage_collection
from modalrun.zenml_api import log_filter

if TYPE_CHECKING:
    from modalrun.zenml_api.execution.steps import StepRunner

STOP_REASON = "the run was asked to stop"


def main() -> NoReturn:
    """Run the steps of the run that the environment names, and exit with their outcome."""
    signal.signal(signal.SIGTERM, _interrupt)
    stop = threading.Event()
    control.listen(stop.set)
    buffer_lines()
    log_filter.hide()
    output_tagging.install()
    code = contract.EXIT_FAILED
    try:
        with garbage_collection.paused():
            from modalrun.zenml_api.execution.steps import StepRunner

            runner = StepRunner(os.environ[contract.RUN_ID])
        code = contract.EXIT_COMPLETED if run(runner, stop) else contract.EXIT_FAILED
    except (Terminated, RunStopped):
        code = contract.EXIT_TERMINATED
    except BaseException:
        traceback.print_exc()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if code != contract.EXIT_COMPLETED and not _record_end(code, stopped=stop.is_set()):
        code = contract.EXIT_UNRECORDED
    leave(code)


def _interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(signal.Signals(signum).name)


def run(runner: StepRunner, stop: threading.Event | None = None) -> bool:
    """Run every step whose turn comes; return whether all of them succeeded.

    One at a time runs in the main thread, where ZenML's signal handling works. Several at a time
    run in threads, each with a copy of the context that ZenML keeps its state in.

    Once `stop` is set, nothing more starts; running steps finish.

    Raises:
        RunStopped: Steps were left out because of `stop`, and none has failed.
    """
    stop = stop or threading.Event()
    limit = int(os.environ.get(contract.MAX_PARALLELISM, "1"))
    scheduler = Scheduler(
        runner.graph, mode=FailureMode(runner.failure_mode), max_parallelism=limit
    )
    scheduler.restore(runner.done)
    for step in runner.done:
        emit_step_event(step, "cached")
    pool = ThreadPoolExecutor(limit, thread_name_prefix="step") if limit > 1 else None
    try:
        _run_all(runner, scheduler, stop, pool)
    finally:
        if pool is not None:
            # After SIGTERM nothing waits for running steps: they end with the process.
            pool.shutdown(wait=False, cancel_futures=True)
    runner.cleanup()
    states = set(scheduler.states.values())
    if stop.is_set() and State.NOT_RUN in states and State.FAILED not in states:
        raise RunStopped
    return scheduler.succeeded


def _run_all(
    runner: StepRunner, scheduler: Scheduler, stop: threading.Event, pool: ThreadPoolExecutor | None
) -> None:
    running: dict[Future[bool], str] = {}
    actions = [*_stop(scheduler, stop), *scheduler.start()]
    while True:
        for step in _report_skips(actions):
            call = functools.partial(_run_step, runner, step, stop)
            if pool is None:
                future: Future[bool] = Future()
                future.set_result(call())
            else:
                future = pool.submit(contextvars.copy_context().run, call)
            running[future] = step
        if not running:
            return
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        actions = _stop(scheduler, stop)
        for future in ended:
            actions += scheduler.ended(running.pop(future), succeeded=future.result())


def _stop(scheduler: Scheduler, stop: threading.Event) -> list[Action]:
    """Return what follows from a request to stop, if there is one."""
    return scheduler.stop(STOP_REASON) if stop.is_set() else []


def _report_skips(actions: list[Action]) -> list[str]:
    """Report the steps that will not run; return the steps to start."""
    for action in actions:
        if isinstance(action, Skip):
            log_line(action.reason)
            emit_step_event(action.step, "not run", reason=action.reason)
    return [action.step for action in actions if not isinstance(action, Skip)]


def _run_step(runner: StepRunner, name: str, stop: threading.Event) -> bool:
    """Run one step with its retries. ZenML's own retry loop would also retry a termination."""
    retries, delay, backoff = runner.retry_policy(name)
    with output_tagging.tagged(name):
        for attempt in range(1, retries + 2):
            emit_step_event(name, "running", attempt=attempt)
            try:
                succeeded = runner.launch(name)
                emit_step_event(name, "completed" if succeeded else "failed", attempt=attempt)
                return succeeded
            except Exception as error:
                print_traceback(error)
                reason = one_line(error)
            if attempt > retries or stop.is_set():
                emit_step_event(name, "failed", attempt=attempt, reason=reason)
                break
            emit_step_event(name, "retrying", attempt=attempt, reason=reason)
            log_line(f"Step `{name}` failed; retry {attempt} of {retries} in {delay:g} s.")
            time.sleep(delay)
            delay *= backoff
    return False


def _record_end(code: int, *, stopped: bool) -> bool:
    """Leave no `running` record in ZenML; return whether that worked."""
    if stopped:
        reason = "The run was asked to stop."
    else:
        terminated = code == contract.EXIT_TERMINATED
        fallback = contract.TERMINATED_REASON if terminated else "The run failed."
        reason = supervisors_reason() or fallback
    try:
        from modalrun.zenml_api.records.runs import finalize_run

        stopped = stopped and code == contract.EXIT_TERMINATED
        finalize_run(os.environ[contract.RUN_ID], reason, stopped=stopped)
    except BaseException:
        # The supervisor tries again in a new process.
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    main()
