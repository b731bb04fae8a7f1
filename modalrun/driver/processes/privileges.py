"""Keep processes that run no user code out of the reach of user code beside them.

User code runs as the same user, often as root, so it could read the memory, the environment and the
descriptors of such a process in /proc, and attach a debugger to it. A container is no boundary
here: all of them are in one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAPBSET_DROP = 24
_CAP_SYS_PTRACE = 19
_CAPABILITY_VERSION_3 = 0x20080522


def hide_process() -> None:
    """Let no process without CAP_SYS_PTRACE read this one's memory, environment or descriptors."""
    prctl(_PR_SET_DUMPABLE, 0)


def show_process() -> None:
    """Undo `hide_process`, in a fork that runs user code."""
    prctl(_PR_SET_DUMPABLE, 1)


@contextlib.contextmanager
def without_source() -> Iterator[None]:
    """Import nothing from the source tree, which is the user's, during the block."""
    path = list(sys.path)
    leave_source()
    try:
        yield
    finally:
        sys.path[:] = path


def leave_source() -> None:
    """Import nothing from the source tree any more."""
    # Its folders too: PYTHONPATH may name them.
    source = Path.cwd()
    sys.path[:] = [one for one in sys.path if one and not Path(one).is_relative_to(source)]


def adopt_orphans() -> None:
    """Become the parent of all processes below this one whose own parents end."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_tracing() -> None:
    """Give up CAP_SYS_PTRACE, which root has, in this process and in all that it starts.

    Debuggers still work on processes of the same user, except hidden ones.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_PTRACE, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable, twice: for the low and the high numbers.
    sets = (ctypes.c_uint32 * 6)()
    with contextlib.suppress(AttributeError):
        if libc.capget(header, sets) == 0:
            for place in range(3):
                sets[place] &= ~(1 << _CAP_SYS_PTRACE)
            libc.capset(header, sets)


def hide_variables(names: Collection[str]) -> None:
    """Overwrite the values of variables in the memory that /proc shows; `os.environ` keeps them.

    The system shows the environment of a hidden process to one that has CAP_SYS_ADMIN.
    """
    if sys.platform != "linux":
        return
    variables = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    for address in itertools.takewhile(bool, map(variables.__getitem__, itertools.count())):
        name, _, value = ctypes.string_at(address).partition(b"=")
        if os.fsdecode(name) in names:
            ctypes.memset(address + len(name) + 1, ord("-"), len(value))


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (`prctl(2)`); nothing happens on other systems."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
