"""Runs the one step of a step sandbox: `per_step` mode.

How it ends, the driver learns from the exit code (`modalrun.run.contract`) and from ZenML.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from modalrun.driver import control
from modalrun.driver.process import (
    Terminated,
    buffer_lines,
    leave,
    print_traceback,
    supervisors_reason,
)
from modalrun.run import events, metadata
from modalrun.run.contract import (
    EXIT_CODE_FILE,
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_TERMINATED,
    EXIT_UNRECORDED,
    GPU,
    RUN_ID,
    STEP,
    STEP_METADATA,
    STEP_RUN,
    WAIT,
)
from modalrun.run.events import StepEvent
from modalrun.run.metadata import StepMetadata
from modalrun.util import garbage_collection
from modalrun.zenml_api import log_filter

_EXIT_CODES = {
    "completed": EXIT_COMPLETED,
    "failed": EXIT_FAILED,
    "stopped": EXIT_TERMINATED,
    "running": EXIT_UNRECORDED,
}
"""What is recorded of the step -> the exit code that says so."""


class Signals:
    """SIGTERM lets the user's code unwind; anywhere else it ends the process as it is.

    The record of the step then still says `running`: the driver decides what becomes of it. Only
    at the sandbox's deadline it is the step that has failed.

    Attributes:
        came: Whether SIGTERM came.
    """

    def __init__(self) -> None:
        self.came = False
        self._unwinds = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.came:
            return
        self.came = True
        if self._unwinds:
            raise Terminated(signal.Signals(signum).name)
        if self.reason() is not None:
            # Not to be recorded from here, in the middle of anything: the supervisor does it.
            end(EXIT_UNRECORDED)
        end(EXIT_TERMINATED)

    @contextlib.contextmanager
    def in_user_code(self) -> Iterator[None]:
        """Inside, SIGTERM raises `Terminated` in the main thread."""
        self._unwinds = True
        try:
            yield
        finally:
            self._unwinds = False

    def reason(self) -> str | None:
        """Why the supervisor says that the step has failed; None where it doesn't."""
        return supervisors_reason()

    def leave(self) -> NoReturn:
        """End the process for the signal."""
        end(EXIT_TERMINATED)


def main() -> NoReturn:
    """Run the step that the environment names, and leave with what is recorded of it."""
    signals = Signals()
    signal.signal(signal.SIGTERM, signals)
    buffer_lines()
    log_filter.hide()
    code = EXIT_UNRECORDED
    try:
        with garbage_collection.paused():
            from modalrun.zenml_api.execution.single_step import SingleStep

            step = SingleStep(
                os.environ[RUN_ID],
                os.environ[STEP],
                step_run=os.environ.get(STEP_RUN),
                metadata=_metadata(),
            )
            wait = os.environ.pop(WAIT, None)
            if wait is not None:
                step.prepare()
        if wait is not None and not control.wait_for_go(float(wait)):
            # It has begun nothing: the driver takes another sandbox when the turn comes.
            end(EXIT_TERMINATED)
        _tell_begun(os.environ[STEP])
        code = _EXIT_CODES[step.run(signals, print_traceback)]
    except BaseException:
        traceback.print_exc()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end(code)


def _tell_begun(step: str) -> None:
    """Say that the step begins; its sandbox has been there for a while."""
    sys.stdout.write(events.line(StepEvent(step, "running", at=time.time())))
    sys.stdout.flush()


def end(code: int) -> NoReturn:
    """Leave with an exit code, and let the supervisor know that it is meant."""
    with contextlib.suppress(KeyError, OSError):
        Path(os.environ[EXIT_CODE_FILE]).write_text(str(code), encoding="ascii")
    leave(code)


def _metadata() -> StepMetadata | None:
    text = os.environ.get(STEP_METADATA)
    # The driver can't know the id of a sandbox that it is about to create.
    here = {"sandbox_id": os.environ.get("MODAL_SANDBOX_ID"), "gpu": os.environ.get(GPU)}
    return metadata.from_json(StepMetadata, {**here, **json.loads(text)}) if text else None


if __name__ == "__main__":
    main()
