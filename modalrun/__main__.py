"""`python -m modalrun` and the console script."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    try:
        from modalrun.cli import run

        code = run(sys.argv[1:])
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`).
        code = 141
    except KeyboardInterrupt:
        # Ctrl-C while the command line is imported or completes.
        code = 130
    # Tearing ZenML and its database pool down takes about a second and changes nothing.
    os._exit(code)


if __name__ == "__main__":
    main()
