"""Describe the faults of this machine: its files, disks and memory."""

from __future__ import annotations

import os
import sys

from modalrun.errors import MachineError, UsageError

MIN_ADDRESS_SPACE = 512 * 1024 * 1024
"""Bytes. With less, ZenML's threads fail one by one, and what waits for them hangs."""


def machine_error(error: OSError | MemoryError, *, creates_run: bool) -> MachineError:
    """Return the error to show for a fault of this machine that nothing else has explained.

    Args:
        error: The fault.
        creates_run: Whether the command that has failed may have created a run before.
    """
    problem = "This machine has no memory left for modalrun."
    hint: str | None = "Raise the limit ('ulimit -v'), or end other programs."
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = " -> ".join(os.fsencode(one).decode("utf-8", "backslashreplace") for one in names)
        reason = error.strerror or str(error) or type(error).__name__
        what = where or ("The output can't be written" if _output_is_stuck() else "")
        problem = f"{what}: {reason}." if what else f"{reason}."
        going = "A run that had started may still be going: see 'modalrun status latest'."
        hint = going if creates_run else None
    shown = MachineError(problem, hint=hint)
    shown.__cause__ = error
    return shown


def _output_is_stuck() -> bool:
    """Return whether there is output that can't be written."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return True
    return False


def require_memory() -> None:
    """Check the limit on this process's memory, where there is one (`ulimit -v`).

    Raises:
        UsageError: It is too low for ZenML.
    """
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise UsageError(
            f"The limit on memory is {limit >> 20} MiB ('ulimit -v'); modalrun needs at least"
            f" {MIN_ADDRESS_SPACE >> 20} MiB.",
            effect="Nothing was created.",
            hint="Raise it, or run the command without it.",
        )
