"""Record the end of a process that died without recording it. The supervisor runs this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from modalrun.driver.processes.process import log_failed_termination
from modalrun.errors import ModalrunError, NoRunError
from modalrun.run.contract import ATTEMPT, DELETED_CLAUSE, ENDED, RUN_ID, STEP
from modalrun.run.reporting import log_line


def main() -> int:
    """Record that the run failed, for the reason given as the first argument.

    In a step sandbox only the step's failure is recorded: the driver decides about the run. The
    standard input has the last lines of output of the step that ran. The
    second argument is the manifest of a `per_step` run, whose step sandboxes are terminated first.
    """
    run_id, reason = os.environ[RUN_ID], sys.argv[1]
    try:
        _record(run_id, reason)
    except NoRunError:
        log_line(f"The end is not recorded: {DELETED_CLAUSE}.")
        return 1
    except Exception as error:
        from modalrun.zenml_api.errors import first_line, store_error

        log_line(
            f"The end is not recorded in ZenML: {first_line(store_error(error) or error)}\n"
            f"When ZenML works again, 'modalrun reconcile {run_id}' records it."
        )
        return 1
    return 0


def _record(run_id: str, reason: str) -> None:
    if len(sys.argv) > 2 and STEP not in os.environ:
        # ZenML may be in trouble for minutes.
        _terminate_steps(Path(sys.argv[2]))
    lines = sys.stdin.read().splitlines()
    from modalrun.zenml_api import config_files
    from modalrun.zenml_api.process import zenml_server
    from modalrun.zenml_api.retry import open_store, while_database_fails

    # On a server in a second: ZenML alone takes several to import, and the driver waits.
    with contextlib.suppress(ModalrunError), zenml_server(config_files.folder()) as found:
        if found:
            _record_end(run_id, reason, lines)
            return
    open_store(in_sandbox=True)
    while_database_fails(lambda: _record_end(run_id, reason, lines))


def _record_end(run_id: str, reason: str, lines: list[str]) -> None:
    if STEP in os.environ:
        from modalrun.zenml_api.records.step_records import fail_step

        step, attempt = os.environ[STEP], int(os.environ.get(ATTEMPT, "1"))
        fail_step(run_id, step, reason, attempt=attempt, lines=lines, ended=_ended())
    else:
        from modalrun.zenml_api.records.updates import finalize_run

        if len(sys.argv) == 2:
            finalize_run(run_id, reason, lines=lines, ended=_ended())
        else:
            # A driver of step sandboxes prints lines of its own, and they have run until now.
            finalize_run(run_id, reason)


def _ended() -> float:
    return float(os.environ[ENDED])


def _terminate_steps(file: Path) -> None:
    from modalrun.modal_api.sandboxes.step_sandboxes import StepSandboxes
    from modalrun.run.manifest import RunManifest

    manifest = RunManifest.from_json(file.read_text(encoding="utf-8"))

    async def terminate() -> None:
        sandboxes = StepSandboxes(manifest)
        await sandboxes.open()
        await sandboxes.terminate_all()

    # The record is settled even if this fails: this is the last process of the run.
    asyncio.run(log_failed_termination(terminate()))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
