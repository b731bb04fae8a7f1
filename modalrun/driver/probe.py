"""Look at a sandbox from within, for `modalrun smoke`: `python -m modalrun.driver.probe MODE ...`.

What is found goes to stdout, as lines of JSON that begin with `MARK`. Only the standard library is
imported, unless the mode is about ZenML or Modal: most sandboxes of a smoke test have no packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalrun.driver.processes.death import memory_limits

MARK = "modalrun-smoke: "

LINES = 10_000
"""Lines of the output that is compared, about a megabyte."""

_ODD = (
    "plain",
    "\ttab",
    "é€😀",
    "\x1b[31mred\x1b[0m",
    "half\rline",
    "\x00nul",
    "\udcff\udcfe bytes",
)
INPUT_SECONDS, SIGNAL_SECONDS = 45, 60
"""How long a probe waits: longer than it takes to see that it is ready (`smoke_trials`)."""


def report(**facts: Any) -> None:
    """Print some facts as one line."""
    sys.stdout.write(f"\n{MARK}{json.dumps(facts)}\n")
    sys.stdout.flush()


def facts_in(output: str) -> list[dict[str, Any]]:
    """Return the facts that a probe has printed so far, in order."""
    found: list[dict[str, Any]] = []
    for line in output.splitlines():
        if line.startswith(MARK):
            with contextlib.suppress(ValueError):
                found.append(json.loads(line.removeprefix(MARK)))
    return found


def payload() -> bytes:
    """Return numbered lines with odd characters, and bytes that are not UTF-8."""
    lines = (f"{n:05} {_ODD[n % len(_ODD)]} {'.' * 80}\n" for n in range(LINES))
    return "".join(lines).encode("utf-8", "surrogateescape")


def inside() -> None:
    """Report the surroundings, then whether ZenML and the artifact store can be used."""
    report(**_surroundings())
    began = time.monotonic()
    from modalrun.zenml_api import process

    try:
        process.prepare_process(Path.cwd())
        from modalrun.zenml_api import health
    except Exception as error:
        message, hint = getattr(error, "problem", repr(error)), getattr(error, "hint", None)
        report(zenml=["problem", message, hint])
        return
    report(zenml_import=time.monotonic() - began)
    for name, attempt in (
        ("zenml", health.login),
        ("artifact_store", lambda: health.round_trip(health.stack_of(None)[0])),
    ):
        try:
            report(**{name: ["ok", attempt(), None]})
        except Exception as error:  # noqa: PERF203 (two attempts)
            found = health.problem_of(name, error)
            report(**{name: [found.state, found.message, found.hint]})


def driver(arguments: str) -> None:
    """Do with the driver's credentials what a driver does."""
    from modalrun.modal_api import trial

    for facts in trial.as_driver(**json.loads(arguments)):
        report(**facts)


def answer() -> None:
    """Report two lines of the input as they come, each with this machine's time."""
    signal.alarm(INPUT_SECONDS)
    report(ready=True)
    for _, line in zip(range(2), sys.stdin, strict=False):
        report(line=line.strip(), at=time.time())


def write() -> None:
    """Write `payload` in pieces that split lines and characters."""
    data = payload()
    for begin in range(0, len(data), 9_973):
        sys.stdout.buffer.write(data[begin : begin + 9_973])
        sys.stdout.buffer.flush()


def wait() -> None:
    """Report the signals that come, and until when this process is alive."""

    def came(number: int, _: object) -> None:
        report(signal=signal.Signals(number).name, at=time.monotonic())

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, came)
    report(ready=True)
    until = time.monotonic() + SIGNAL_SECONDS
    while time.monotonic() < until:
        report(alive=time.monotonic())
        time.sleep(0.1)


def end(code: str) -> None:
    """End with an exit code, or by SIGKILL."""
    if code == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(code))


def fill(mib: str) -> None:
    """Take that much memory, and hold it for a moment."""
    held = []
    for _ in range(int(mib) // 16):
        held.append(b"x" * (16 << 20))
        time.sleep(0.02)
    report(held=len(held) * 16)


def volume(folder: str, text: str = "") -> None:
    """Write a text into a volume; without one, report what it holds."""
    path = Path(folder) / "modalrun-smoke.txt"
    if text:
        path.write_text(text, encoding="utf-8")
    else:
        report(found=path.read_text(encoding="utf-8") if path.exists() else None)


def gpu() -> None:
    """Report the GPUs that the driver shows."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)  # noqa: S607
        report(gpus=[line.partition(" (UUID")[0] for line in done.stdout.splitlines()])
    except OSError as error:
        report(gpus=[], why=str(error.strerror))


def _surroundings() -> dict[str, Any]:
    return {
        "variables": sorted(name for name in os.environ if name.startswith("MODAL_")),
        "init": Path("/proc/1/comm").read_text().strip() if Path("/proc/1/comm").exists() else "?",
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgrp(),
        "uid": os.getuid(),
        "memory": next(memory_limits(), None),
        "writable": {
            "TMPDIR": _writable(Path(tempfile.gettempdir())),
            "HOME": _writable(Path.home()),
            "the working folder": _writable(Path.cwd()),
        },
    }


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


MODES: dict[str, Callable[..., None]] = {
    one.__name__: one for one in (inside, driver, answer, write, wait, end, fill, volume, gpu)
}

if __name__ == "__main__":
    MODES[sys.argv[1]](*sys.argv[2:])
