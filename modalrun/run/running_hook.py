"""Note which hook of the pipeline a process runs, so that its parent can name it in an end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from modalrun.run import contract


@contextlib.contextmanager
def noted(hook: str) -> Iterator[None]:
    """Note in a file that this process runs a hook ("init" or "cleanup") in the block."""
    file = _file(os.environ, os.getpid())
    if file is None:
        yield
        return
    with contextlib.suppress(OSError):
        file.write_text(hook, encoding="ascii")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def process(pid: int, environment: Mapping[str, str], otherwise: str) -> str:
    """Return what an ended process was: that of a hook, or `otherwise`."""
    file = _file(environment, pid)
    if file is not None:
        with contextlib.suppress(OSError):
            return f"{file.read_text(encoding='ascii')} hook's process"
    return otherwise


def _file(environment: Mapping[str, str], pid: int) -> Path | None:
    """Return the file of a process; None outside of a sandbox."""
    beside = environment.get(contract.END_REASON_FILE)
    return Path(beside).with_name(f"hook-{pid}") if beside else None
