"""Keep user code from spoiling the process that runs it, and has to record its end afterwards."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from typing import NoReturn

from modalrun.run import notes
from modalrun.util import forks

_LIMITS = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
_NEEDED_FILE_SIZE = 2**30
_NEEDED_DESCRIPTORS = 32
"""How many files and connections the process opens after the block, generously."""

_copies: dict[int, tuple[int, int]] = {}
"""Descriptor of a standard stream -> its copy and inode, from before any user code.

For the whole process: inline steps run side by side, and one may have led it elsewhere for a while.
"""


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Undo what user code in the block does to its process, or end the process.

    A process that was forked in the block and leaves it ends. Lowered resource limits are raised
    again, and standard streams that are closed or lead elsewhere are restored. If that fails, or
    the process's own descriptors were closed, nothing could be recorded: the process ends at once
    with code 1, and leaves a note that says why.

    Raises:
        RuntimeError: A standard stream was closed, and user code has failed at using it.
    """
    limits = {number: resource.getrlimit(number) for number in _LIMITS}
    closed_before = _closed_streams()
    streams = {"stdout": sys.stdout, "stderr": sys.stderr}
    _copy_streams()
    # It is closed with all others by code that closes what it has not opened.
    reader, writer = os.pipe()
    identity = os.fstat(reader).st_ino
    try:
        with forks.ended():
            yield
    except (OSError, ValueError) as error:
        closed = " and ".join(sorted(_closed_streams() - closed_before))
        if not closed:
            raise
        raise RuntimeError(
            f"The step has closed its {closed}: {type(error).__name__}: {error}"
        ) from error
    finally:
        _raise_limits(limits)
        if not _is_open(reader, identity) or not _restore_streams():
            _end("has closed file descriptors that it had not opened")
        if not _descriptors_are_left(reader):
            _end("has left too few file descriptors (RLIMIT_NOFILE)")
        if _is_lower(resource.getrlimit(resource.RLIMIT_FSIZE)[0], _NEEDED_FILE_SIZE):
            _end("has limited the size of its files (RLIMIT_FSIZE)")
        os.close(reader)
        os.close(writer)
        for name, stream in streams.items():
            if getattr(getattr(sys, name), "closed", True):
                setattr(sys, name, stream)


def _raise_limits(before: dict[int, tuple[int, int]]) -> None:
    """Raise the limits that were lowered, as far as possible."""
    for number, (soft, hard) in before.items():
        new_soft, new_hard = resource.getrlimit(number)
        if _is_lower(new_soft, soft) or _is_lower(new_hard, hard):
            try:
                resource.setrlimit(number, (soft, hard))
            except (OSError, ValueError):
                # Only root can raise the hard limit.
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(number, (new_hard, new_hard))


def _is_lower(limit: int, than: int) -> bool:
    if limit == resource.RLIM_INFINITY:
        return False
    return than == resource.RLIM_INFINITY or limit < than


def _is_open(descriptor: int, identity: int) -> bool:
    try:
        return os.fstat(descriptor).st_ino == identity
    except OSError:
        return False


def _copy_streams() -> None:
    for descriptor in (1, 2):
        if descriptor not in _copies:
            with contextlib.suppress(OSError):
                _copies[descriptor] = os.dup(descriptor), os.fstat(descriptor).st_ino


def _restore_streams() -> bool:
    """Let the standard streams lead where they led before; return whether that was possible."""
    for descriptor, (copy, identity) in _copies.items():
        if not _is_open(copy, identity):
            return False
        if not _is_open(descriptor, identity):
            os.dup2(copy, descriptor)
    return True


def _descriptors_are_left(descriptor: int) -> bool:
    """Return whether there is room for more descriptors, if necessary after raising the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (soft, hard):
        copies: list[int] = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            copies.extend(os.dup(descriptor) for _ in range(_NEEDED_DESCRIPTORS))
        except OSError:
            continue
        else:
            return True
        finally:
            for copy in copies:
                os.close(copy)
    return False


def _closed_streams() -> set[str]:
    closed = set()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            os.fstat(stream.fileno())
        except (OSError, ValueError, AttributeError):
            closed.add(name)
    return closed


def _end(problem: str) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    notes.leave("reason", f"User code {problem}, so its process can't go on.")
    os._exit(1)
