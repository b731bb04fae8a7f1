"""Run the one step of a step sandbox: `per_step` mode.

The driver learns from the exit code (`modalrun.run.sandbox_exit`) and from ZenML how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import NoReturn

from modalrun.driver.processes import process
from modalrun.run import contract, metadata
from modalrun.run.events import StepEvent
from modalrun.run.metadata import StepMetadata
from modalrun.run.reporting import forget_key, prove_events, write_event
from modalrun.run.step_order import label_of
from modalrun.util import garbage_collection
from modalrun.zenml_api import log_filter
from modalrun.zenml_api.records import run_access


def main() -> NoReturn:
    """Run the step that the environment names, and exit with what is recorded of it."""
    signals = process.Signals()
    signal.signal(signal.SIGTERM, signals)
    process.die_with_parent()
    process.buffer_lines()
    prove_events()
    log_filter.hide()
    code = contract.EXIT_UNRECORDED
    try:
        with garbage_collection.paused():
            from modalrun.zenml_api.execution import steps
            from modalrun.zenml_api.execution.single_step import SingleStep

            name = os.environ[contract.STEP]
            step = SingleStep(
                steps.load(os.environ[contract.RUN_ID], name),
                name,
                step_run=os.environ.get(contract.STEP_RUN),
                metadata=_metadata(),
            )
        # Without a sandbox: the step itself begins.
        write_event(StepEvent(label_of(os.environ), "running", at=time.time()))
        forget_key()
        code = process.EXIT_CODES[step.run(signals, process.print_traceback)]
    except BaseException as error:
        if run_access.deleted(os.environ.get(contract.RUN_ID, "")):
            # The driver notices it, too.
            code = contract.EXIT_TERMINATED
        else:
            process.print_traceback(error)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    process.leave(code)


def _metadata() -> StepMetadata | None:
    text = os.environ.get(contract.STEP_METADATA)
    # The driver can't know the id of a sandbox before it creates it.
    own = {
        "sandbox_id": os.environ.get("MODAL_SANDBOX_ID"),
        "gpu": os.environ.get(contract.GPU),
        "started": float(os.environ[contract.STARTED]),
    }
    return metadata.from_json(StepMetadata, {**own, **json.loads(text)}) if text else None


if __name__ == "__main__":
    main()
