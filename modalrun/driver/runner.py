"""Runs all steps of a run in this process, in graph order: `pipeline` mode inside the sandbox.

ZenML's stock pipeline entrypoint ignores failure modes and trips over cached steps; this runner
uses ZenML's own step launcher beneath, so that caching, hooks, artifacts and step logs are ZenML's.
"""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from modalrun.driver import (
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_TERMINATED,
    EXIT_UNRECORDED,
    MAX_PARALLELISM,
    RUN_ID,
    RunStopped,
)
from modalrun.driver.process import (
    Terminated,
    buffer_lines,
    leave,
    print_traceback,
    say,
    supervisors_reason,
)
from modalrun.driver.scheduler import Action, FailureMode, Scheduler, Skip, Start

if TYPE_CHECKING:
    from modalrun.zenml_api.steps import StepRunner


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
    buffer_lines()
    # Imports allocate much and free nothing: collecting meanwhile costs a fifth of the start-up.
    gc.disable()
    code = EXIT_FAILED
    try:
        from modalrun.zenml_api.steps import StepRunner

        runner = StepRunner(os.environ[RUN_ID])
        gc.freeze()
        gc.enable()
        code = EXIT_COMPLETED if run(runner) else EXIT_FAILED
    except (Terminated, RunStopped):
        code = EXIT_TERMINATED
    except BaseException:
        traceback.print_exc()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if code != EXIT_COMPLETED and not _record_end(code):
        code = EXIT_UNRECORDED
    leave(code)


def run(runner: StepRunner) -> bool:
    """Run every step whose turn comes; returns whether all of them succeeded.

    One at a time runs in the main thread, where ZenML's signal handling works. Several at a time
    run in threads, each with a copy of the context that ZenML keeps its state in.
    """
    limit = int(os.environ.get(MAX_PARALLELISM, "1"))
    scheduler = Scheduler(
        runner.graph,
        mode=FailureMode(runner.failure_mode),
        max_parallelism=limit,
        done=runner.done,
    )
    walk = _one_by_one if limit == 1 else _side_by_side
    walk(runner, scheduler, limit)
    runner.cleanup()
    return scheduler.succeeded


def _one_by_one(runner: StepRunner, scheduler: Scheduler, _limit: int) -> None:
    actions = scheduler.start()
    while starts := _say_skips(actions):
        (step,) = starts
        actions = scheduler.ended(step, succeeded=_run_step(runner, step))


def _side_by_side(runner: StepRunner, scheduler: Scheduler, limit: int) -> None:
    running: dict[Future[bool], str] = {}
    pool = ThreadPoolExecutor(limit, thread_name_prefix="step")
    try:
        actions = scheduler.start()
        while True:
            for step in _say_skips(actions):
                context = contextvars.copy_context()
                running[pool.submit(context.run, _run_step, runner, step)] = step
            if not running:
                return
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            actions = []
            for future in ended:
                actions += scheduler.ended(running.pop(future), succeeded=future.result())
    finally:
        # After SIGTERM nothing waits for the other steps: the process ends, and they with it.
        pool.shutdown(wait=False, cancel_futures=True)


def _say_skips(actions: list[Action]) -> list[str]:
    """Tell of the steps that will not run; returns the steps to start."""
    for action in actions:
        if isinstance(action, Skip):
            say(action.reason)
    return [action.step for action in actions if isinstance(action, Start)]


def _run_step(runner: StepRunner, name: str) -> bool:
    """Run one step with its retries. ZenML's own retry loop would also retry a termination."""
    retries, delay, backoff = runner.retry_policy(name)
    for attempt in range(retries + 1):
        try:
            return runner.launch(name)
        except Exception as error:
            print_traceback(error)
        if attempt < retries:
            say(f"Step `{name}` failed; retry {attempt + 1} of {retries} in {delay:g} s.")
            time.sleep(delay)
            delay *= backoff
    return False


def _record_end(code: int) -> bool:
    """Leave nothing `running` in ZenML; returns whether that worked."""
    try:
        from modalrun.zenml_api.runs import finalize_run

        finalize_run(os.environ[RUN_ID], _end_reason(code))
    except BaseException:
        # The supervisor tries again in a process that is not in the middle of anything.
        traceback.print_exc()
        return False
    return True


def _end_reason(code: int) -> str:
    """Why the run ends, in the supervisor's words where it said something."""
    ours = "The sandbox was told to end." if code == EXIT_TERMINATED else "The run failed."
    return supervisors_reason() or ours


if __name__ == "__main__":
    main()
