"""Run modalrun as `python -m modalrun` and as the console script."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        from modalrun.cli import run

        code = run(sys.argv[1:])
        _flush(code)
    except BrokenPipeError:
        # The reader of the output has gone (`| head`).
        code = 141
    except KeyboardInterrupt:
        # It arrived before the handlers were installed.
        code = 130
    # The regular teardown of ZenML and its database pool takes about a second, for nothing.
    os._exit(code)


def _flush(code: int) -> None:
    from modalrun.util import interrupts

    def flush() -> None:
        sys.stdout.flush()
        sys.stderr.flush()

    interrupted = code in (130, 143)
    interrupts.within(interrupts.OUTPUT_SECONDS if interrupted else None, flush)


if __name__ == "__main__":
    main()
