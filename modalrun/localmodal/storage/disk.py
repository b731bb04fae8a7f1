"""Write to the disk of the state folder, which may be full."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

_RESERVE = 1024 * 1024
"""Bytes that must be free before anything is created: records and logs need some."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PROBE = 64 * 1024

DISK_FULL = "The disk of the local Modal server's state folder"
"""The beginning of what is told about a full disk."""

ADVICE = "Free some space there, or set MODALRUN_LOCAL_STATE to a folder on another disk."


class Disk:
    """The disk of a state folder."""

    def __init__(self, root: Path, is_full: Callable[[], bool] = lambda: False) -> None:
        """
        Args:
            root: The state folder.
            is_full: Whether a fault script says that the disk is full.
        """
        self._root = root
        self._is_full = is_full

    def check(self) -> None:
        """Raise OSError if a fault script says that the disk is full."""
        if self._is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._root))

    def require(self, size: int = 0) -> None:
        """Raise OSError unless there is room for `size` bytes and a reserve."""
        self.check()
        if shutil.disk_usage(self._root).free < size + _RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._root))

    def problem(self, error: BaseException) -> str | None:
        """Return what to tell a user about an error of a full disk; None for another error."""
        if isinstance(error, OSError):
            is_full = error.errno in _FULL
        else:
            # SQLite has one code for a failed write of any kind, on some disks also when full.
            is_full = isinstance(error, sqlite3.OperationalError) and (
                "full" in str(error) or ("disk I/O error" in str(error) and self._has_no_room())
            )
        if not is_full:
            return None
        return f"{DISK_FULL} {self._root} is full. {ADVICE}"

    def _has_no_room(self) -> bool:
        if shutil.disk_usage(self._root).free < _RESERVE:
            return True
        try:
            # A quota may be used up.
            with tempfile.TemporaryFile(dir=self._root) as file:
                file.write(bytes(_PROBE))
                file.flush()
        except OSError as error:
            return error.errno in _FULL
        return False


class AppendedFile:
    """A file that grows; what a full disk does not take stays in memory until `flush`.

    Attributes:
        held: The bytes in memory.
    """

    def __init__(self, path: Path, disk: Disk, *, writable: bool) -> None:
        """Open the file. Raises FileNotFoundError if it is missing and not `writable`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
        self._file = os.open(path, flags, 0o600)
        self._disk = disk
        self._stored = os.fstat(self._file).st_size
        self._rest = bytearray()

    @property
    def size(self) -> int:
        return self._stored + len(self._rest)

    @property
    def held(self) -> int:
        return len(self._rest)

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._rest += data
        self.flush()

    def flush(self) -> None:
        """Write what is in memory as far as there is room."""
        try:
            while self._rest:
                self._disk.check()
                written = os.write(self._file, self._rest)
                self._stored += written
                del self._rest[:written]
        except OSError:
            # It stays in memory and is tried again.
            return

    def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from an offset; empty at the end."""
        stored = os.pread(self._file, min(size, max(0, self._stored - offset)), offset)
        begin = offset + len(stored) - self._stored
        if begin < 0 or not self._rest:
            return stored
        return stored + bytes(self._rest[begin : begin + size - len(stored)])

    def truncate(self, size: int) -> None:
        """Cut off the end of a file without anything in memory."""
        os.truncate(self._file, size)
        self._stored = size

    def close(self) -> None:
        os.close(self._file)
