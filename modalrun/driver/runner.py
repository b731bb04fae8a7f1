"""Runs all steps of a run in this process, in graph order: `pipeline` mode inside the sandbox.

ZenML's stock pipeline entrypoint ignores failure modes and trips over cached steps; this runner
uses ZenML's own step launcher beneath, so that caching, hooks, artifacts and step logs are ZenML's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from modalrun.driver import (
    END_REASON_FILE,
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_TERMINATED,
    EXIT_UNRECORDED,
    RUN_ID,
    RunStopped,
)

if TYPE_CHECKING:
    from modalrun.zenml_api.steps import StepRunner


class Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that neither a retry nor user code takes it for one."""


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
    # Line buffering: a line is one write, and leaves when it is complete.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
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
    _leave(code)


def run(runner: StepRunner) -> bool:
    """Run every step whose turn comes; returns whether all of them succeeded.

    Failure modes are ZenML's: FAIL_FAST and STOP_ON_FAILURE start nothing after a failure,
    CONTINUE_ON_FAILURE leaves out only what depends on the failed step.
    """
    failed: set[str] = set()
    skipped: set[str] = set()
    for name, upstream in runner.graph.items():
        if name in runner.done:
            continue
        if failed and not runner.continues_on_failure:
            skipped.add(name)
            _say(f"Step `{name}` is not run: {', '.join(sorted(failed))} failed.")
            continue
        blocked = sorted(set(upstream) & (failed | skipped))
        if blocked:
            skipped.add(name)
            _say(f"Step `{name}` is not run: {', '.join(blocked)} did not succeed.")
            continue
        if not _run_step(runner, name):
            failed.add(name)
    runner.cleanup()
    return not failed


def _run_step(runner: StepRunner, name: str) -> bool:
    """Run one step with its retries. ZenML's own retry loop would also retry a termination."""
    retries, delay, backoff = runner.retry_policy(name)
    for attempt in range(retries + 1):
        try:
            return runner.launch(name)
        except Exception as error:
            print_traceback(error)
        if attempt < retries:
            _say(f"Step `{name}` failed; retry {attempt + 1} of {retries} in {delay:g} s.")
            time.sleep(delay)
            delay *= backoff
    return False


def print_traceback(error: Exception) -> None:
    """Print a step's exception from the user's own first line on; whole where there is none."""
    root = str(Path.cwd())
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(root):
        trace = trace.tb_next
    # One write, so that it stays together among what else is printed.
    lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


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
    with contextlib.suppress(OSError, KeyError):
        return Path(os.environ[END_REASON_FILE]).read_text(encoding="utf-8")
    return "The sandbox was told to end." if code == EXIT_TERMINATED else "The run failed."


def _leave(code: int) -> NoReturn:
    """End the process without tearing the interpreter down, which takes ZenML about a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
