"""Check paths that a user, a file or the environment names, before the system is asked."""

from __future__ import annotations

import os
from pathlib import Path

from modalrun.errors import UsageError

LONGEST = 2_000
"""Bytes of a path. Systems take 4,096 (Linux, `PATH_MAX`), with the folder that it is below."""

LONGEST_NAME = 255
"""Bytes of each name in it (Linux, `NAME_MAX`)."""


def path_problem(text: str) -> str | None:
    """Return why no file can have a path, as the end of a sentence; None if one can."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return "a path can't hold half of a surrogate pair"
    if b"\0" in data:
        return "a path can't hold a NUL character"
    if len(data) > LONGEST or any(len(name) > LONGEST_NAME for name in data.split(b"/")):
        return f"a path has at most {LONGEST:,} bytes, and each name in it {LONGEST_NAME}"
    return None


def checked_path(text: str | Path, what: str) -> Path:
    """Return a path.

    Raises:
        UsageError: No file can have it.
    """
    if problem := path_problem(str(text)):
        raise UsageError(f"{what}: {problem}.")
    return Path(text)


def user_path(text: str | Path, what: str) -> Path:
    """Return a path in which `~` is expanded. As `checked_path`, also for an unknown user."""
    path = checked_path(text, what)
    try:
        return checked_path(path.expanduser(), what)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{what}: the home folder of {path.parts[0]!r} is not known.") from error
