"""Run modalrun as `python -m modalrun` and as the console script."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from modalrun.errors import NOTHING_BEGUN, Interrupted


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    _open_closed_streams()
    code: int | None = None
    try:
        from modalrun.cli import run

        code = run(sys.argv[1:])
        _flush(code)
    except BrokenPipeError:
        # The reader of the output has gone (`| head`).
        code = 141
    except KeyboardInterrupt:
        # It arrived before the handlers were installed, or after the command.
        if code is None:
            os.write(2, f"{NOTHING_BEGUN}\n".encode())
        code = 130
    except Interrupted as interruption:
        code = interruption.exit_code
    except (OSError, MemoryError) as error:
        # After another code, this error has been shown, or another one that matters more.
        if not code:
            code = 8
            with contextlib.suppress(OSError, MemoryError):
                from modalrun.output.terminal.sanitize import plain

                text = plain(f"Error: The output can't be written: {error}.")
                # Not through the stream, which may hold what it could not write.
                os.write(2, f"{text}\n".encode())
    # The regular teardown of ZenML and its database pool takes about a second, for nothing.
    os._exit(code)


def _open_closed_streams() -> None:
    """Let a standard stream that is closed (`<&-`) behave as `/dev/null` does."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            # Programs that are started inherit it.
            os.set_inheritable(number, True)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _flush(code: int) -> None:
    from modalrun.util import interrupts

    def flush() -> None:
        sys.stdout.flush()
        sys.stderr.flush()

    # What a reader that does not read holds up must not hold up an end by a signal.
    interrupted = code in (129, 130, 143)
    interrupts.within(interrupts.OUTPUT_SECONDS if interrupted else None, flush)


if __name__ == "__main__":
    # `python -m` puts the current folder there, whose modules would hide those of packages.
    with contextlib.suppress(FileNotFoundError):
        if sys.path[0] == os.getcwd():  # noqa: PTH109 (as Python writes it)
            del sys.path[0]
    main()
