"""Search a folder while other processes change it, and remove those of killed servers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from modalrun.localmodal.sandbox import rootfs


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


def remove_sandboxes(state: Path) -> None:
    """Remove the folders of sandboxes that a killed server has left, as the next one would."""
    for folder in (state / "sandboxes").glob("*"):
        rootfs.remove(folder)
