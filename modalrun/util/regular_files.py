"""Read regular files, where a path may be a link, a named pipe or a device, or become one."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it. A named pipe doesn't block.

    Raises:
        OSError: It can't be opened, or is something else.
    """
    return _regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def open_inside(folder: Path, path: Path) -> BinaryIO:
    """Open a regular file below a folder, without following any link.

    A link that replaces a part of the path meanwhile is an error.

    Args:
        folder: The folder, which is no link.
        path: The path below it, without links and without "..".

    Raises:
        OSError: It can't be opened, is something else, or a part of its path is a link.
    """
    options = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(folder, options | os.O_DIRECTORY)
    for part in path.parent.parts:
        above = here
        try:
            here = os.open(part, options | os.O_DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    try:
        return _regular(os.open(path.name, options | os.O_NONBLOCK, dir_fd=here))
    finally:
        os.close(here)


def read_text(path: Path, most: int) -> str:
    """Read at most so many bytes of a text file; what is not UTF-8 is replaced.

    Raises:
        OSError: It can't be read, or is no regular file.
    """
    with open_regular(path) as file:
        return file.read(most).decode(errors="replace")


def _regular(descriptor: int) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "it is no regular file")
    return os.fdopen(descriptor, "rb")
