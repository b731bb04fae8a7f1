"""Leave short notes about a process for its parent, which sees how it ends.

A note is a symbolic link that leads to its text: it needs no descriptor, and no room in a file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from modalrun.run import contract

Subject = Literal["hook", "reason"]
"""Which of the pipeline's hooks runs; why the process ends itself."""


@contextlib.contextmanager
def during(subject: Subject, text: str) -> Iterator[None]:
    """Leave a note for as long as the block runs."""
    leave(subject, text)
    try:
        yield
    finally:
        if (note := _note(subject, os.getpid(), os.environ)) is not None:
            note.unlink(missing_ok=True)


def leave(subject: Subject, text: str) -> None:
    """Leave a note about this process; nothing happens outside of a sandbox."""
    if (note := _note(subject, os.getpid(), os.environ)) is not None:
        with contextlib.suppress(OSError):
            note.symlink_to(text)


def read(subject: Subject, pid: int, environment: Mapping[str, str]) -> str | None:
    """Return what a process has left; None if it has left nothing."""
    if (note := _note(subject, pid, environment)) is not None:
        with contextlib.suppress(OSError):
            return str(note.readlink())
    return None


def _note(subject: Subject, pid: int, environment: Mapping[str, str]) -> Path | None:
    beside = environment.get(contract.END_REASON_FILE)
    return Path(beside).with_name(f"{subject}-{pid}") if beside else None
