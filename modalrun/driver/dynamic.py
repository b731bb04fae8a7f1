"""Run a dynamic pipeline, whose function decides while it runs which steps there are.

`python -m modalrun.driver.dynamic [MANIFEST]` runs under the supervisor in the run sandbox. Inline
steps run here, in threads. With a manifest (`per_step` mode) ZenML's isolated steps get sandboxes
of their own, which another process creates (`sandbox_broker`); without one, all steps run here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from modalrun.driver.processes import control, process
from modalrun.driver.sandbox_client import SandboxClient
from modalrun.errors import ModalrunError
from modalrun.run import contract, notes, output_tagging
from modalrun.run.reporting import prove_events
from modalrun.util import garbage_collection
from modalrun.zenml_api import log_filter
from modalrun.zenml_api.records import run_access


def main() -> NoReturn:
    """Run the pipeline of the run that the environment names, and exit with its outcome."""
    isolated: SandboxClient | None = None

    def end(_signum: int, _frame: FrameType | None) -> None:
        if process.supervisors_reason() is None:
            # The supervisor knows whether somebody has asked for it, or user code has done it.
            process.die(signal.SIGTERM)
        # In a thread: the main thread may hold locks that the end needs.
        threading.Thread(target=_end, args=(isolated,), daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    process.die_with_parent()
    process.buffer_lines()
    prove_events()
    log_filter.hide()
    output_tagging.install()
    # The function's own lines belong to no step, even while one runs.
    output_tagging.untag_thread()
    code = contract.EXIT_UNRECORDED
    try:
        with garbage_collection.paused():
            if len(sys.argv) > 1:
                isolated = SandboxClient()
            # What the user's modules parse when they are imported.
            del sys.argv[1:]
            from modalrun.zenml_api.execution.dynamic import DynamicRun

            death = json.loads(os.environ.pop(contract.DEATH, "null"))
            run_id, end_reason = os.environ[contract.RUN_ID], process.supervisors_reason
            run = DynamicRun(run_id, isolated, death, end_reason)
        control.listen(run.stop)
        code = process.EXIT_CODES[run.run(_print)]
    except BaseException as error:
        if run_access.deleted(os.environ.get(contract.RUN_ID, "")):
            code = contract.EXIT_TERMINATED
        else:
            process.print_traceback(error)
        if isinstance(error, ModalrunError):
            notes.leave("reason", error.message)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if isolated is not None:
        isolated.terminate_all()
    process.leave(code)


def _print(error: BaseException) -> None:
    """Print what the pipeline raised, unless its run was deleted: the command says so."""
    if not run_access.deleted(os.environ.get(contract.RUN_ID, "")):
        process.print_traceback(error)


def _end(isolated: SandboxClient | None) -> NoReturn:
    """Terminate the step sandboxes, record that the run's time is over, and exit."""
    code = contract.EXIT_UNRECORDED
    try:
        if isolated is not None:
            isolated.terminate_all()
        from modalrun.zenml_api.records.updates import finalize_run

        finalize_run(os.environ[contract.RUN_ID], process.termination_reason())
        code = contract.EXIT_TERMINATED
    except BaseException as error:
        process.print_traceback(error)
    process.leave(code)


if __name__ == "__main__":
    main()
