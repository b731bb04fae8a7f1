"""Import modules once and fork sandboxes that have them in memory.

`python warm.py SOCKET STATE REQUEST`, where REQUEST is a `preload.Preload` as JSON, imports the
modules, reports on the socket (one line of JSON, see `load`) and forks keepers as `keeper` does.
Their processes do not execute a command; they become `python -m MODULE` as the interpreter would
have run it. Such a program can start another one in the same way with `sys._modalrun_warm`.

An import may depend on the environment. So the process records which variables the imports read,
and does not serve a command whose environment differs in one of them. Only the standard library is
used.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # The modules beside this file would hide those of the standard library.
    del sys.path[0]

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import operator
import os
import runpy
import shutil
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

MARK = "_modalrun_warm"
_START_UP = ("PYTHON", "LD_", "DYLD_", "LC_", "MALLOC_", "GLIBC_")
_START_UP_NAMES = frozenset({"LANG", "LANGUAGE", "TZ"})


def matters_at_start(name: str) -> bool:
    """Return whether the interpreter or the C library reads a variable at the start."""
    return name.startswith(_START_UP) or name in _START_UP_NAMES


def is_program(
    argv: Sequence[str], env: Mapping[str, str], python: str, programs: Sequence[str]
) -> bool:
    """Return whether a command is `python -m` with one of the programs or a submodule."""
    if len(argv) < 3 or argv[1] != "-m":
        return False
    if not any(argv[2] == known or argv[2].startswith(f"{known}.") for known in programs):
        return False
    program = shutil.which(argv[0], path=env.get("PATH"))
    # Another environment's `python` may link to the same file, so compare the folders too.
    return (
        program is not None
        and os.path.dirname(program) == os.path.dirname(python)  # noqa: PTH120 - texts.
        and os.path.realpath(program) == os.path.realpath(python)
    )


@dataclass(frozen=True)
class Warm:
    """The commands that a warm process can become.

    Attributes:
        python: The interpreter, as commands name it.
        programs: The packages and modules that can be run, with their submodules.
        path: `sys.path` without a program's folder.
        values: The environment variables that were read so far; None for an unset one.
        changes: The variables that the imports changed; None for a removed one.
    """

    python: str
    programs: tuple[str, ...]
    path: tuple[str, ...]
    values: Mapping[str, str | None]
    changes: Mapping[str, str | None] = field(default_factory=dict)

    def suits(self, argv: Sequence[str], env: Mapping[str, str]) -> bool:
        """Return whether a command run here behaves like a new process."""
        if not is_program(argv, env, self.python, self.programs):
            return False
        at_start = [name for name in env if matters_at_start(name)]
        return all(self._is_as_before(name, env.get(name)) for name in {*self.values, *at_start})

    def _is_as_before(self, name: str, value: str | None) -> bool:
        if value == self.values.get(name):
            return True
        # In a C locale, Python itself sets LC_CTYPE (PEP 538), which children inherit.
        return matters_at_start(name) and name in self.changes and value == self.changes[name]

    def become(self, argv: list[str], env: Mapping[str, str]) -> NoReturn:
        """Turn a forked process into `python -m MODULE ...`.

        Keeps the working folder, the standard streams and inheritable descriptors, like exec.
        """
        try:
            self._clear(argv, env)
            # It may have been imported, but is a program now.
            sys.modules.pop(argv[2], None)
            # `python -m` calls this too (CPython's Modules/main.c, 3.10 to 3.13).
            runpy._run_module_as_main(argv[2])  # type: ignore[attr-defined]
            code: object = 0
        except SystemExit as leaving:
            code = leaving.code
        except BaseException as error:
            trace = error.__traceback__
            # Hide this function, as in a new process.
            error.__traceback__ = trace and trace.tb_next
            sys.excepthook(type(error), error, error.__traceback__)
            # Python itself dies of SIGINT then.
            code = 130 if isinstance(error, KeyboardInterrupt) else 1
        _leave(code)

    def _clear(self, argv: list[str], env: Mapping[str, str]) -> None:
        """Reset the state that this process inherited."""
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no objects for what is closed.
            with contextlib.suppress(OSError):
                if int(name) > 2 and not os.get_inheritable(int(name)):
                    os.close(int(name))
        changed = {**env, **self.changes}
        os.environ.clear()
        os.environ.update({name: value for name, value in changed.items() if value is not None})
        time.tzset()
        show_arguments(argv)
        sys.executable = shutil.which(argv[0]) or self.python
        sys.orig_argv = list(argv)
        sys.argv = list(argv[1:2] + argv[3:])
        here = [] if os.environ.get("PYTHONSAFEPATH") else [_working_folder()]
        sys.path[:] = [*here, *self.path]
        sys.modules["__main__"] = ModuleType("__main__")
        sys.modules["__main__"].__dict__["__builtins__"] = sys.modules["builtins"]
        importlib.invalidate_caches()
        gc.enable()
        # Python's own settings at its start; until here SIGINT ends the process in silence.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _working_folder() -> str:
    """Return the working folder; "" if it was deleted, as in `python -m`."""
    try:
        return os.getcwd()  # noqa: PTH109 - a text.
    except OSError:
        return ""


def _leave(code: object) -> NoReturn:
    """Exit as the interpreter does: join threads, run exit functions, flush."""
    status = code if isinstance(code, int) else int(code is not None)
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201 (as Python does at `sys.exit(text)`)
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = status or 1
    finally:
        os._exit(status & 0xFF)


# `arg_start` and `env_start` in /proc/PID/stat, each followed by its end (proc(5)); counted from
# the third field.
_ARGUMENTS, _ENVIRONMENT = 45, 47


def _show(field: int, texts: Sequence[str]) -> None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        start, end = int(fields[field]), int(fields[field + 1])
        line = b"\0".join(map(os.fsencode, texts))[: end - start - 1]
        if start:
            ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


def show_arguments(argv: Sequence[str]) -> None:
    """Have `ps` show a command, cut to the length of the original one."""
    _show(_ARGUMENTS, argv)


def own_environment() -> None:
    """Copy the variables out of the memory that `show_environment` overwrites."""
    variables = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)


def show_environment(env: Mapping[str, str]) -> None:
    """Show an environment as this process's in /proc, cut to the original length."""
    _show(_ENVIRONMENT, [f"{name}={value}" for name, value in env.items()])


class _EnvironmentReads:
    """The environment variables that were read, and whether all were read at once."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.all = False

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record reads of `os.environ`."""
        kind = type(os.environ)
        get, iterate = kind.__getitem__, kind.__iter__

        def get_recorded(environ: Any, name: str) -> str:
            self.names.add(name)
            return get(environ, name)

        def iterate_recorded(environ: Any) -> Iterator[str]:
            self.all = True
            return iterate(environ)

        # Patch the class, because modules keep references to `os.environ`.
        kind.__getitem__, kind.__iter__ = get_recorded, iterate_recorded  # type: ignore[method-assign]
        try:
            yield
        finally:
            kind.__getitem__, kind.__iter__ = get, iterate  # type: ignore[method-assign]


def _package_folders() -> dict[str, int]:
    """Return the folders of installed packages and the times of their last changes."""
    folders = {path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}}
    return {path: _changed_at(path) for path in folders}


def _files_elsewhere(folders: Collection[str]) -> dict[str, int]:
    """Return the files of imported modules that are in none of these folders, nor Python's own."""
    known = (*folders, os.path.dirname(os.__file__))  # noqa: PTH120 - texts.
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return {file: _changed_at(file) for file in files if file and not file.startswith(known)}


def _changed_at(path: str) -> int:
    """Return the modification time of a file or folder in nanoseconds; 0 if unknown."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - no objects for a hundred files.
    except OSError:
        return 0


def is_outdated(report: Mapping[str, Any]) -> bool:
    """Return whether what was imported has changed since, by the report of `load`."""
    return any(_changed_at(path) != then for path, then in report["watched"].items())


def _import(name: str) -> None:
    """Import `module`, and call the function of `module:function` or `module:object.method`."""
    module_name, _, function = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Skip a missing module, but not a missing dependency of it.
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        return
    if function:
        operator.attrgetter(function)(module)()


def environment_of_exec() -> dict[str, str]:
    """Read the environment that this process started with; `os.environ` may have changed."""
    pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)


def preload(request: Mapping[str, Any]) -> tuple[Warm, str | None]:
    """Import the modules of a request; return the result and the problem that makes it useless.

    Args:
        request: A `preload.Preload` as JSON, and `python`: the interpreter, as commands name it.
    """
    before = environment_of_exec()
    path = tuple(sys.path)
    reads = _EnvironmentReads()
    problem = None
    # Imports allocate much and free little.
    gc.disable()
    with reads.recorded():
        try:
            for name in request["modules"]:
                _import(name)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
    gc.collect()
    # A collection in a child would copy the memory.
    gc.freeze()
    if reads.all:
        problem = "the imports read the whole environment"
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        problem = "the imports start threads, which a forked process would lack"
    names = reads.names | {name for name in before if matters_at_start(name)}
    after = dict(os.environ)
    warm = Warm(
        python=request["python"],
        programs=tuple(request["programs"]),
        path=path,
        values={name: before.get(name) for name in names - set(request["late"])},
        changes={
            name: after.get(name)
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        },
    )
    return warm, problem


def load(request: Mapping[str, Any]) -> tuple[Warm, dict[str, Any]]:
    """Preload the modules of a request; return the result and the report for the server."""
    # Before the imports, so that a change during them counts.
    folders = _package_folders()
    began = time.monotonic()
    warm, problem = preload(request)
    return warm, {
        "problem": problem,
        "seconds": round(time.monotonic() - began, 3),
        "values": dict(warm.values),
        "watched": {**folders, **_files_elsewhere(folders)},
    }


def serve(channel: socket.socket, warm: Warm, report: Mapping[str, Any]) -> NoReturn:
    """Send the report, then fork keepers until the server closes the socket."""
    spec = importlib.util.spec_from_file_location(
        "_modalrun_keeper", Path(__file__).with_name("keeper.py")
    )
    assert spec is not None and spec.loader is not None
    keeper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keeper)
    with contextlib.suppress(OSError):
        channel.sendall(json.dumps(report).encode() + b"\n")
    if report["problem"] is None:
        setattr(sys, MARK, warm)
        keeper.nurse(channel, warm.become)
    # Skip the teardown of the imported modules.
    os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), *load(json.loads(sys.argv[3])))
