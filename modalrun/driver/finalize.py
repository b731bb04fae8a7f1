"""Records the end of a process that died without a word. Called by the supervisor."""

from __future__ import annotations

import os
import sys

from modalrun.driver import RUN_ID, STEP


def main() -> int:
    """Record that the run failed, for the reason given as the first argument.

    In a step sandbox it is the step: what becomes of the run is the driver's to say.
    """
    run_id, reason = os.environ[RUN_ID], sys.argv[1]
    if STEP in os.environ:
        from modalrun.zenml_api.step_records import fail_step

        fail_step(run_id, os.environ[STEP], reason)
    else:
        from modalrun.zenml_api.runs import finalize_run

        finalize_run(run_id, reason)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
