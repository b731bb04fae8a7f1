"""Find out what code reads while it is imported, to know whether it would do the same again.

Python reports each file that is opened, each folder that is listed, each program that is started
and each request (audit events, PEP 578); which clock or random number code asks for is not
reported, so its source is searched for that. The environment, the installed packages and the day
are left to the caller.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import os
import site
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_PATHS = 2_000
MOST_BYTES = 50_000_000
"""Of all files together. To hash more would take longer than to compile."""

_FOREIGN = ("subprocess.", "socket.", "http.client.", "sqlite3.", "ftplib.", "smtplib.", "urllib.")
_STARTS = frozenset({"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"})
"""Events of what may answer otherwise the next time."""

_LISTS = frozenset({"os.listdir", "os.scandir"})

_VOLATILE = (
    frozenset({"now", "today", "utcnow", "time", "time_ns", "ctime", "localtime", "gmtime"})
    | {"monotonic", "perf_counter", "uuid1", "uuid4", "random", "randint", "randrange", "choice"}
    | {"choices", "sample", "shuffle", "urandom", "secrets", "getrandbits", "rand", "randn"}
    | {"exists", "is_file", "is_dir", "isfile", "isdir", "stat", "getmtime", "getsize", "getpid"}
    | {"gethostname", "getuser", "cpu_count", "disk_usage"}
)
"""Names of what no audit event reports: clocks, random numbers, questions about files."""

_NOT_FILES = ("/proc/", "/sys/", "/dev/")


@dataclass
class Inputs:
    """Hold what was read.

    Attributes:
        paths: The hash of each file and of each folder's list of names; "" for one that is missing.
        doubts: Why the code might do something else the next time, although nothing has changed
            that is known; empty if there is no reason.
    """

    paths: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


class _Watch:
    """Take the audit events of one thread. A hook can't be removed, so there is one for all."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.doubts: set[str] = set()
        self._thread = threading.get_ident()
        self.began = time.time()

    def take(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what an event tells of."""
        if threading.get_ident() != self._thread:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(mode, str) and not mode.startswith("r")
            if mode is None and isinstance(flags, int):
                writes = flags & os.O_ACCMODE != os.O_RDONLY
            if not writes and isinstance(path, (str, bytes, os.PathLike)):
                self.files.add(_absolute(path))
        elif event in _LISTS:
            # The import system, and importlib.metadata, list all places of modules; a new one is a
            # change of the packages or of the source tree.
            importing = "importlib" in sys._getframe(2).f_code.co_filename
            if not importing and not isinstance(arguments[0], int):
                self.folders.add(_absolute(arguments[0] or "."))
        elif event in _STARTS or event.startswith(_FOREIGN):
            self.doubts.add(f"it calls {event}")


_watch: _Watch | None = None
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch is not None:
        _watch.take(event, arguments)


@contextlib.contextmanager
def watched(inputs: Inputs, others: Iterable[str] = ()) -> Iterator[None]:
    """Add what the block reads in this thread to `inputs`.

    Args:
        inputs: What was read before.
        others: Folders whose files don't count, besides those of installed packages.
    """
    global _watch, _hooked  # noqa: PLW0603 (an audit hook stays until the process ends)
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    before = set(sys.modules)
    watch = _watch = _Watch()
    try:
        yield
    finally:
        _watch = None
    own = _Own(others)
    for name in set(sys.modules) - before:
        source = getattr(sys.modules[name], "__file__", None)
        if source is not None and own.has(source):
            watch.files.add(source)
            inputs.doubts += _volatile(Path(source))
    inputs.doubts += sorted(watch.doubts)
    files = {_source(path) for path in watch.files if own.has(path)}
    if any(changed_since(Path(path), watch.began) for path in files):
        inputs.doubts.append("a file has just changed")
    folders = {path for path in watch.folders if own.has(path)}
    try:
        inputs.paths.update(hashes([*files, *folders]))
    except ValueError as error:
        inputs.doubts.append(str(error))


def unchanged(paths: Mapping[str, str]) -> bool:
    """Return whether files and folders are as they were."""
    try:
        return hashes(list(paths)) == paths
    except ValueError:
        return False


def changed_since(path: Path, moment: float) -> bool:
    """Return whether a file has changed since a moment, in seconds since 1970."""
    # The clock of files lags a little.
    return path.exists() and path.stat().st_mtime >= moment - 0.05


def hashes(paths: list[str]) -> dict[str, str]:
    """Hash files, and the names in folders; "" for what can't be read.

    Raises:
        ValueError: They are too many, or too large.
    """
    if len(paths) > MOST_PATHS:
        raise ValueError(f"it reads more than {MOST_PATHS:,} files")
    left, found = MOST_BYTES, {}
    for path in sorted(paths):
        try:
            file = Path(path)
            if file.is_dir():
                names = sorted({one.name for one in file.iterdir()} - {"__pycache__"})
                content = "\0".join(names).encode("utf-8", "surrogateescape")
            else:
                left -= file.stat().st_size
                if left < 0:
                    raise ValueError(f"it reads more than {MOST_BYTES:,} bytes")
                content = file.read_bytes()
        except OSError:
            found[path] = ""
            continue
        found[path] = hashlib.sha256(content).hexdigest()
    return found


class _Own:
    """Tell the files of the user from those of Python and of installed packages."""

    def __init__(self, others: Iterable[str]) -> None:
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        folders = {sysconfig.get_path(name) for name in names} | {site.getusersitepackages()}
        folders |= {str(Path(__file__).parents[1]), *others}
        places = {os.path.realpath(folder) for folder in folders} | folders
        self._others = tuple(f"{place}/" for place in places) + _NOT_FILES

    def has(self, path: str) -> bool:
        """Return whether a path is the user's."""
        return not f"{path}/".startswith(self._others)


def _absolute(path: Any) -> str:
    # Not Path.resolve: what a link leads to may change.
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


def _source(path: str) -> str:
    """Return the source of a file of bytecode: the bytecode is made from it."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            return importlib.util.source_from_cache(path)
    return path


def _volatile(path: Path) -> list[str]:
    """Return what of a module, outside of its steps, may differ the next time."""
    if path.suffix != ".py":
        return [f"{path.name} is compiled code"]
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return [f"{path.name} can't be read"]
    found: list[str] = []

    def search(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef) and any(map(_is_step, node.decorator_list)):
            return
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        if name in _VOLATILE and isinstance(node, ast.Name | ast.Attribute):
            found.append(f"{path.name}:{node.lineno} uses '{name}'")
        for child in ast.iter_child_nodes(node):
            search(child)

    search(tree)
    return found[:1]


def _is_step(decorator: ast.expr) -> bool:
    """Return whether a decorator is `@step`, which keeps the function for the sandbox."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (getattr(called, "id", None) or getattr(called, "attr", None)) == "step"
