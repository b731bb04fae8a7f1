"""Records the end of a run whose runner died without a word. Called by the supervisor."""

from __future__ import annotations

import os
import sys

from modalrun.driver import RUN_ID


def main() -> int:
    """Record that the run failed, for the reason given as the first argument."""
    from modalrun.zenml_api.runs import finalize_run

    finalize_run(os.environ[RUN_ID], sys.argv[1])
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
