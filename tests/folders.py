"""Looking through a folder in which others are at work, who may take paths away meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def below(folder: Path) -> Iterator[Path]:
    """Every path below a folder; unlike `Path.rglob`, it goes on where a folder is gone."""
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
