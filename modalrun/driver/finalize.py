"""Records the end of a process that died without a word. Called by the supervisor."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from modalrun.run.contract import RUN_ID, STEP
from modalrun.run.reporting import log_line

END_SECONDS = 20.0
"""How long it is tried to end the step sandboxes of a dead driver."""


def main() -> int:
    """Record that the run failed, for the reason given as the first argument.

    In a step sandbox it is the step: what becomes of the run is the driver's to decide. The second
    argument is the manifest of a `per_step` run, whose step sandboxes are ended first.
    """
    run_id, reason = os.environ[RUN_ID], sys.argv[1]
    if STEP in os.environ:
        from modalrun.zenml_api.records.step_records import fail_step

        fail_step(run_id, os.environ[STEP], reason)
    else:
        if len(sys.argv) > 2:
            _end_steps(Path(sys.argv[2]))
        from modalrun.zenml_api.records.runs import finalize_run

        finalize_run(run_id, reason)
    return 0


def _end_steps(file: Path) -> None:
    """End the step sandboxes of a run whose driver is dead."""
    from modalrun.modal_api.step_sandboxes import StepSandboxes
    from modalrun.run.manifest import RunManifest

    manifest = RunManifest.from_json(file.read_text(encoding="utf-8"))
    fleet = StepSandboxes(manifest, {}, Path.cwd(), log_line)

    async def end() -> None:
        await fleet.open()
        await fleet.terminate_all()

    try:
        asyncio.run(asyncio.wait_for(end(), END_SECONDS))
    except Exception as error:
        # The record is settled all the same: nobody comes after this.
        log_line(f"The step sandboxes may still run: {type(error).__name__}: {error}")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
