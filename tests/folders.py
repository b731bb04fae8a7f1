"""Search a folder while other processes change it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def below(folder: Path) -> Iterator[Path]:
    """Yield every path below a folder; unlike `Path.rglob`, skip vanished folders."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in folders + files)


def files_with(folder: Path, text: str) -> list[str]:
    """The files below a folder that contain a text."""
    found = []
    for path in below(folder):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
                found.append(str(path))
    return found
