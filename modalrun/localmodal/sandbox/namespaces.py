"""Give the processes of a sandbox a root and process ids of their own, with Linux namespaces.

The keeper calls this below a nursery, which loads the module from its file, so it imports little.
The system calls are those of the C library, because `os` has only some of them, and since Python
3.12. Those with a number are the same on every architecture; the newest is of Linux 5.12.
"""

# ruff: noqa: PTH103, PTH120, PTH123, PTH208, PTH211 - pathlib would make it larger.
from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
from typing import Any

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS = 0x20000, 0x8000000, 0x10000000, 0x20000000
NEW_NETWORK = 0x40000000

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_HERE, _EMPTY_PATH, _RECURSIVE, _CLONE = -100, 0x1000, 0x8000, 1
_MOVE_FROM_DESCRIPTOR = 0x4
_NO_LINKS = 0x4
_READ_ONLY, _NO_SETUID, _NO_DEVICES = 1, 2, 4
_BIND, _PRIVATE_BELOW = 0x1000, 0x40000 | 0x4000
_DETACH = 2
_DUMPABLE, _DROP_FROM_BOUNDS, _NO_NEW_PRIVILEGES = 4, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
# What root keeps, as in a container: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
# SETPCAP, NET_BIND_SERVICE, SYS_CHROOT and SETFCAP. It sees its own processes and files only.
_ROOT_KEEPS = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))

_LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
_LINKS |= {name: f"/proc/self/fd/{n}" for n, name in enumerate(("stdin", "stdout", "stderr"))}

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _unshare(flags: int, what: str) -> None:
    _call(what, _libc.unshare(flags))


def own_user(nursery: socket.socket) -> None:
    """Enter a new user namespace, whose ids the nursery maps (`map_ids`). Raises OSError."""
    try:
        _unshare(NEW_USER, "no user namespace")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.strerror = "/proc/sys/user/max_user_namespaces allows no more"
        raise
    nursery.send(b"u")
    if problem := nursery.recv(200):
        raise OSError(os.fsdecode(problem))


def map_ids(child: socket.socket, pid: int) -> None:
    """Map the ids of a child's user namespace when it asks: each to itself; of root, all of them.

    A process can't do that for itself. So files belong to whom they would belong without.
    """
    own = {"setgroups": "deny", "uid_map": f"{os.geteuid()} {os.geteuid()} 1"}
    own["gid_map"] = f"{os.getegid()} {os.getegid()} 1"
    try:
        if not child.recv(1):
            return
        # Without privileges only one's own id can be mapped, and only so.
        for name in own if os.geteuid() else ("uid_map", "gid_map"):
            text = own[name] if os.geteuid() else _known_ids(name)
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        try:
            child.send(os.fsencode(f"no map of users: {error.strerror}"))
        except OSError:
            # It was killed.
            return


def _known_ids(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        lines = [line.split() for line in file]
    return "\n".join(f"{first} {first} {count}" for first, _, count in lines)


def _tree(source: str, attributes: int, links: int = 0) -> int:
    """Return a descriptor of a copy of a file or folder, for a mount; `links` may forbid links."""
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, links)
    opened = _libc.syscall(_OPENAT2, _HERE, os.fsencode(source), how, ctypes.sizeof(how))
    place = _call(source, opened)
    flags = _CLONE | _RECURSIVE | _EMPTY_PATH | os.O_CLOEXEC
    tree = _call(source, _libc.syscall(_OPEN_TREE, place, b"", flags))
    os.close(place)
    settings = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _EMPTY_PATH | _RECURSIVE
    done = _libc.syscall(_MOUNT_SETATTR, tree, b"", flags, settings, ctypes.sizeof(settings))
    _call(f"{source}: attributes", done)
    return tree


def _attach(tree: int, target: str) -> None:
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
    flags = _MOVE_FROM_DESCRIPTOR
    done = _libc.syscall(_MOVE_MOUNT, tree, b"", _HERE, os.fsencode(target), flags)
    os.close(tree)
    _call(target, done)


def _mount(kind: str, target: str, options: str = "") -> None:
    os.makedirs(target, exist_ok=True)
    attributes = _NO_SETUID | (0 if kind == "devpts" else _NO_DEVICES)
    words = (kind.encode(), os.fsencode(target), kind.encode(), attributes, options.encode())
    _call(f"{kind} at {target}", _libc.mount(*words))


def build(view: dict[str, Any]) -> None:
    """Make the root of a `view.View` that of this process, the first of a new process namespace.

    Raises OSError.
    """
    root = view["root"]
    # The folders are everybody's in the sandbox.
    os.umask(0o022)
    _call("private mounts", _libc.mount(b"none", b"/", None, _PRIVATE_BELOW, None))
    _call(root, _libc.mount(os.fsencode(root), os.fsencode(root), None, _BIND, None))
    # All sources before the new root, all targets below it: a link in a volume leads nowhere else.
    trees = []
    for source, target, writable in view["mounts"]:
        attributes = _NO_SETUID | _NO_DEVICES | (0 if writable else _READ_ONLY)
        # Another sandbox may have put a link into a volume that both change.
        links = _NO_LINKS if source != target else 0
        trees.append((target, _tree(source, attributes, links) if source else -1))
    # Root could change their modes and owners, which are those of this machine; a program can write
    # to a device all the same.
    trees += [(path, _tree(path, _NO_SETUID | _READ_ONLY)) for path in view["devices"]]
    # The kernel wants to see the old one for this.
    _mount("proc", f"{root}/proc")
    os.chdir(root)
    _call("new root", _libc.pivot_root(b".", b"."))
    _call("old root", _libc.umount2(b".", _DETACH))
    os.chdir("/")
    _mount("tmpfs", "/dev", "mode=0755")
    _mount("tmpfs", "/dev/shm", "mode=1777")  # noqa: S108 (the sandbox's)
    _mount("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620")
    for name, aim in _LINKS.items():
        os.symlink(aim, f"/dev/{name}")
    for target, aim in view["links"]:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(aim, target)
    for target, tree in trees:
        if tree < 0:
            _mount("tmpfs", target, "mode=0755")
        else:
            _attach(tree, target)
    if not os.geteuid():
        # Root owns the machine's settings there, and the modes of what tells about it.
        _attach(_tree("/proc", _READ_ONLY | _NO_SETUID | _NO_DEVICES), "/proc")


def separate(*, network: bool) -> None:
    """Take new namespaces; those of processes begin with the next child. Raises OSError."""
    flags = NEW_MOUNTS | NEW_PIDS | NEW_IPC | (0 if network else NEW_NETWORK)
    _unshare(flags, "no namespaces")
    if not network:
        import fcntl
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            # SIOCSIFFLAGS: the loopback interface is UP and RUNNING.
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))


def descriptors(*, network: bool) -> list[int]:
    """Open the namespaces of this process for `enter`. Raises OSError."""
    names = ("user", "mnt", "pid", "ipc", *(() if network else ("net",)))
    return [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]


def enter(namespaces: list[int]) -> None:
    """Enter the namespaces of a sandbox, with the next child as to processes. Raises OSError."""
    for namespace in namespaces:
        _call("the sandbox's namespaces", _libc.setns(namespace, 0))
        os.close(namespace)


def hide() -> None:
    """Let no process of the sandbox read the memory or the descriptors of this one."""
    _libc.prctl(_DUMPABLE, 0, 0, 0, 0)


def confine() -> None:
    """Close all files but the standard streams, and give up what could undo `build`."""
    _libc.prctl(_DUMPABLE, 1, 0, 0, 0)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                # That of the listing.
                continue
    keep = 0 if os.geteuid() else _ROOT_KEEPS
    for number in range(64):
        if not keep >> number & 1:
            _libc.prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable; the high numbers follow.
    sets = (ctypes.c_uint32 * 6)(keep, keep, 0, 0, 0, 0)
    _call("capabilities", _libc.capset(header, sets))
    _call("privileges", _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
