"""Do what the SDK's `Sandbox.filesystem` asks for: the SDK runs it in the sandbox by `exec`.

`python -I -S fs_tools.py ROOT COMMAND` stands for Modal's own program. ROOT is the folder that is
the sandbox's `/`, COMMAND a JSON object (`modal/_utils/sandbox_fs_utils.py`, 1.6.4). It prints the
answer. On an error it prints a JSON object to stderr and ends with 1. Formats of the answers are
those of the stand-in in Modal's own client tests (read 2026-11-28).
"""

# The paths are texts of the request; the output is what the SDK reads.
# ruff: noqa: PTH102, PTH103, PTH106, PTH108, PTH115, PTH118, PTH119, PTH120, PTH123, PTH208, TID251
from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import shutil
import stat
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

PROGRAM = "/__modal/.bin/modal-sandbox-fs-tools"

_LARGEST = 5 * 1024**3
"""Bytes of a file that can be read."""

_KINDS = {
    errno.ENOENT: "NotFound",
    errno.ENOTDIR: "NotDirectory",
    errno.EISDIR: "IsDirectory",
    errno.EACCES: "PermissionDenied",
    errno.EPERM: "PermissionDenied",
    errno.EROFS: "PermissionDenied",
    errno.EEXIST: "PathAlreadyExists",
    errno.ENOTEMPTY: "DirectoryNotEmpty",
}

_EVENT = struct.Struct("iIII")
_ISDIR, _IGNORED = 0x40000000, 0x8000
_NAMES = {
    0x001: "Access",
    0x002: "Modify",
    0x004: "Modify",
    0x040: "RenameFrom",
    0x080: "RenameTo",
    0x100: "Create",
    0x200: "Remove",
    0x400: "Remove",
}
"""The events of inotify(7) by the names that the SDK knows."""


def _fail(kind: str, message: str) -> NoReturn:
    os.write(2, json.dumps({"version": 1, "error_kind": kind, "message": message}).encode())
    raise SystemExit(1)


def _print(answer: object) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


class Tools:
    """The commands. Each method is named as the SDK names its command."""

    def __init__(self, root: str) -> None:
        self._root = root

    def real(self, path: str) -> str:
        """Return the real path of one in the sandbox."""
        # Without a root of its own, a path must not lead out of the folder.
        return self._root + os.path.normpath(f"/{path}") if self._root else path

    def _entry(self, path: str) -> dict[str, Any]:
        import grp
        import pwd

        real = self.real(path)
        found = os.lstat(real)
        kind, owner, group = "file", str(found.st_uid), str(found.st_gid)
        if stat.S_ISLNK(found.st_mode):
            kind = "symlink"
        elif stat.S_ISDIR(found.st_mode):
            kind = "directory"
        # One without a name is told by its number.
        with contextlib.suppress(KeyError):
            owner = pwd.getpwuid(found.st_uid).pw_name
            group = grp.getgrgid(found.st_gid).gr_name
        return {
            "name": os.path.basename(path.rstrip("/")),
            "path": path,
            "type": kind,
            "size": found.st_size,
            "mode": found.st_mode,
            "permissions": f"{stat.S_IMODE(found.st_mode):04o}",
            "owner": owner,
            "group": group,
            "modified_time": found.st_mtime,
            "symlink_target": os.readlink(real) if kind == "symlink" else None,
        }

    def Fail(self, kind: str, message: str) -> None:
        """Fail with what is wrong with the server."""
        _fail(kind, message)

    def Stat(self, path: str) -> None:
        """Print the entry of a path."""
        _print(self._entry(path))

    def ListFiles(self, path: str) -> None:
        """Print the entries of a folder."""
        names = sorted(os.listdir(self.real(path)))
        sys.stdout.write(json.dumps([self._entry(os.path.join(path, name)) for name in names]))

    def ReadFile(self, path: str) -> None:
        """Print the bytes of a file."""
        with open(self.real(path), "rb") as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                _fail("FileTooLarge", f"the file is larger than {_LARGEST} bytes")
            shutil.copyfileobj(file, sys.stdout.buffer, 1024 * 1024)

    def WriteFile(self, path: str) -> None:
        """Write the standard input to a file."""
        real = self.real(path)
        try:
            os.makedirs(os.path.dirname(real), exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        with open(real, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1024 * 1024)

    def MakeDirectory(self, path: str, parents: bool = True) -> None:
        """Create a folder."""
        if parents:
            os.makedirs(self.real(path), exist_ok=True)
        else:
            os.mkdir(self.real(path))

    def Remove(self, path: str, recursive: bool = False) -> None:
        """Delete a file or folder."""
        real = self.real(path)
        if not stat.S_ISDIR(os.lstat(real).st_mode):
            os.unlink(real)
        elif recursive:
            shutil.rmtree(real)
        else:
            os.rmdir(real)

    def Watch(
        self,
        path: str,
        recursive: bool = False,
        filter: list[str] | None = None,
        timeout_secs: float | None = None,
    ) -> None:
        """Print the changes below a path, until the standard input or the time ends."""
        watch = Watch(self.real(path), recursive=recursive)
        end = None if timeout_secs is None else time.monotonic() + timeout_secs
        while end is None or time.monotonic() < end:
            limit = None if end is None else max(0.0, end - time.monotonic())
            readable = select.select([watch.descriptor, 0], [], [], limit)[0]
            if 0 in readable and not os.read(0, 4096):
                return
            if watch.descriptor in readable:
                for name, changed in watch.events():
                    if filter is None or name in filter:
                        shown = changed.removeprefix(self._root)
                        _print({"event_type": name, "paths": [shown]})


class Watch:
    """Watch a file or folder by inotify. Raises OSError."""

    def __init__(self, path: str, *, recursive: bool) -> None:
        if sys.platform != "linux":
            _fail("NotSupported", "the local Modal server watches on Linux only")
        path = os.path.realpath(path)
        self._recursive = recursive
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.inotify_init()
        self._folders: dict[int, str] = {}
        if recursive:
            self._add_below(path)
        else:
            self._add(path)

    def _add(self, path: str) -> None:
        number = self._libc.inotify_add_watch(self.descriptor, os.fsencode(path), sum(_NAMES))
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders[number] = path

    def _add_below(self, path: str) -> list[str]:
        """Watch a folder and all below; return what is there. Raises OSError."""
        self._add(path)
        found = []
        for folder, names, files in os.walk(path):
            for name in names:
                # It may be gone again.
                with contextlib.suppress(FileNotFoundError):
                    self._add(os.path.join(folder, name))
            found += [os.path.join(folder, name) for name in (*names, *files)]
        return found

    def events(self) -> Iterator[tuple[str, str]]:
        """Read what has happened: names of events, each with its path."""
        data = os.read(self.descriptor, 65536)
        place = 0
        while place < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, place)
            name = data[place + _EVENT.size :][:length].rstrip(b"\0")
            place += _EVENT.size + length
            folder = self._folders.get(number)
            if folder is None or mask & _IGNORED:
                continue
            path = os.path.join(folder, os.fsdecode(name)) if name else folder
            inner: list[str] = []
            if self._recursive and mask & _ISDIR and mask & 0x180:
                with contextlib.suppress(FileNotFoundError):
                    inner = self._add_below(path)
            for bit, event in _NAMES.items():
                # Access and permissions of the folder itself are no change of what is in it.
                if mask & bit and (name or not mask & _ISDIR):
                    yield event, path
            # Made before it was watched.
            for below in inner:
                yield "Create", below


def main(root: str, command: Mapping[str, Mapping[str, Any]]) -> None:
    """Run one command; print an error as the SDK expects it."""
    ((name, arguments),) = command.items()
    try:
        getattr(Tools(root.rstrip("/")), name)(**arguments)
    except OSError as error:
        _fail(_KINDS.get(error.errno or 0, "Io"), error.strerror or str(error))
    except ValueError as error:
        # No system has such a path.
        _fail("Io", str(error))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
