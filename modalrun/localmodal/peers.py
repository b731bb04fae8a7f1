"""Identify the process at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct
import sys
from asyncio.trsock import TransportSocket

# From <sys/un.h> of macOS, where the Python module has no names for them.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2


def is_own(connection: socket.socket | TransportSocket) -> bool:
    """Return whether the other process belongs to the user of this one."""
    if sys.platform == "linux":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    else:
        # `struct xucred`: its version, the user id, groups.
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)
    (uid,) = struct.unpack_from("I", credentials, 4)
    return bool(uid == os.geteuid())


def pid_of(connection: socket.socket) -> int:
    """Return the id of the other process; of the one that listens, not of its successors."""
    if sys.platform == "linux":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    else:
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4)
    (pid,) = struct.unpack_from("i", credentials)
    return int(pid)
