"""Steps that leave a process of no use behind, each with a step after it."""

import builtins
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from zenml import pipeline, step


@step
def forks() -> str:
    """Return in two processes."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "parent" if child else "child"


@step
def closes() -> int:
    """Close the standard streams' descriptors."""
    os.close(1)
    os.close(2)
    return 1


@step
def unloads() -> int:
    """Forget the modules of ZenML."""
    for name in list(sys.modules):
        if name.startswith("zenml"):
            del sys.modules[name]
    return 1


@step
def fine(text: str = "fine") -> int:
    """Be well."""
    print(f"got {text}")
    return 1


@pipeline(enable_cache=False)
def spoiling() -> None:
    """All of them, one after the other."""
    fine(forks(), id="uses")
    closes()
    fine("still open", id="prints", after=["closes", "uses"])
    unloads(after=["prints"])
    fine("loaded", id="last", after=["prints"])


@pipeline(enable_cache=False, dynamic=True)
def dynamic_forking() -> None:
    """Go on with what a step has returned, in the one process that may."""
    got = forks().load()
    print(f"the function goes on with {got}")


def _deletes_its_folder() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    shutil.rmtree(folder)


def _blocks_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def _leaves_threads() -> None:
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(600,), daemon=False).start()


def _leaves_children() -> None:
    for _ in range(3):
        subprocess.Popen(["sleep", "600"])
    if os.fork() == 0:
        time.sleep(600)


def _limits(name: str, value: int) -> None:
    number = getattr(resource, f"RLIMIT_{name}")
    resource.setrlimit(number, (value, value))


def _empties_the_temporary_folder() -> None:
    for path in Path(tempfile.gettempdir()).iterdir():
        shutil.rmtree(path, ignore_errors=True)
    tempfile.tempdir = "/nowhere"
    os.environ["TMPDIR"] = "/nowhere"


def _patches_builtins() -> None:
    def no(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    builtins.open = no  # type: ignore[assignment]
    builtins.len = no  # type: ignore[assignment]
    builtins.isinstance = no  # type: ignore[assignment]


def _unloads() -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in {"zenml", "sqlalchemy", "pydantic"}:
            del sys.modules[name]


def _leaks_descriptors() -> None:
    kept = globals().setdefault("kept", [])
    try:
        while len(kept) < 100_000:
            kept.append(os.dup(0))
    except OSError:
        pass


def _replaces_streams() -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


SPOILERS: dict[str, Callable[[], object]] = {
    "closes_descriptors": lambda: os.closerange(3, 500),
    "deletes_its_folder": _deletes_its_folder,
    "blocks_signals": _blocks_signals,
    "leaves_threads": _leaves_threads,
    "leaves_children": _leaves_children,
    "limits_files": lambda: _limits("FSIZE", 10),
    "limits_descriptors": lambda: _limits("NOFILE", 5),
    "limits_processes": lambda: _limits("NPROC", 0),
    "empties_temp": _empties_the_temporary_folder,
    "patches_builtins": _patches_builtins,
    "unloads": _unloads,
    "leaks_descriptors": _leaks_descriptors,
    "replaces_streams": _replaces_streams,
    "closes_streams": lambda: (sys.stdout.close(), sys.stderr.close()),
    "ends_group": lambda: os.killpg(os.getpgrp(), signal.SIGTERM),
}


@step
def spoil(way: str) -> int:
    """Spoil the process, and end well."""
    SPOILERS[way]()
    return 1


@pipeline(enable_cache=False)
def chain(ways: list[str] | None = None) -> None:
    """Spoilers that don't wait for each other, and a step that has to end well after each."""
    for number, way in enumerate(ways or SPOILERS):
        spoil(way, id=f"{number:02}_{way}")
        fine(f"after {way}", id=f"{number:02}_fine")
