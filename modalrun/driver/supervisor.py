"""The first process of every sandbox. It imports neither SDK and so starts at once.

It starts the runner as its child, passes signals on, ends it at the deadline, and when the child
dies without a word (out of memory, a segfault) has the end recorded in ZenML. What the child
prints passes through it and leaves as valid UTF-8: one stray byte would otherwise end Modal's own
stream reader (`modal/io_streams.py:214`, 1.6.4).
"""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from modalrun.driver import spawn
from modalrun.run.contract import (
    CONTROL,
    DRIVER_MODULE,
    DYNAMIC_MODULE,
    END_REASON_FILE,
    EXIT_CODE_FILE,
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_KILLED,
    EXIT_OUT_OF_MEMORY,
    EXIT_TERMINATED,
    EXIT_TIMED_OUT,
    EXIT_UNRECORDED,
    RUN_ID,
    STEP,
    STOP_FILE,
    TAKE_OVER,
    TERMINATED_REASON,
    TIMEOUT,
)

CHUNK = 65_536
DRAIN_SECONDS = 2.0
"""How long output that a dead child left in its pipes is waited for."""

TERMINATE_GRACE_SECONDS = 10.0
"""How long a runner that was told to end may take for it."""

_WORDS_SAID = (EXIT_COMPLETED, EXIT_FAILED, EXIT_TERMINATED)
"""Exit codes by which the runner says that it has recorded its end."""


def margin(timeout: float) -> float:
    """Seconds before the sandbox's own timeout at which the runner is told to end.

    A tenth of the timeout, between 0.5 and 30 s: time to record the end, for about the price of
    starting ZenML once more.
    """
    return min(30.0, max(0.5, timeout * 0.1))


def main() -> int:
    """Run `python -m <arguments>` under supervision; returns the sandbox's exit code."""
    timeout = float(os.environ[TIMEOUT])
    deadline = time.monotonic() + timeout - margin(timeout)
    earlier_kills = _out_of_memory_kills()
    home = Path(tempfile.mkdtemp(prefix="modalrun-"))
    environment = _child_environment(home)
    terminated = threading.Event()
    running: list[spawn.Child] = []

    def kill() -> None:
        for child in running[-1:]:
            child.kill()

    def pass_on(_signum: int, _frame: object) -> None:
        if not terminated.is_set():
            terminated.set()
            for child in running[-1:]:
                child.terminate()
            killer = threading.Timer(TERMINATE_GRACE_SECONDS, kill)
            killer.daemon = True
            killer.start()

    # Before there is a child: a signal that comes while it starts is passed on when it has.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, pass_on)
    child, pumps = _start(environment)
    running.append(child)
    if terminated.is_set():
        child.terminate()

    timed_out = False
    try:
        code = child.wait(max(0.0, deadline - time.monotonic()))
        if _is_driver() and code not in _WORDS_SAID and not terminated.is_set():
            # The steps are in sandboxes of their own and go on: another driver can take over.
            _say(f"The driver ended with {code}; another one takes over.")
            environment[TAKE_OVER] = "1"
            child, more = _start(environment)
            running.append(child)
            pumps += more
            if terminated.is_set():
                child.terminate()
            code = child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        timed_out = True
        reason = f"The {_whose()} took longer than its timeout of {timeout:g} s."
        Path(environment[END_REASON_FILE]).write_text(reason, encoding="utf-8")
        _say(reason)
        code = _end(child, margin(timeout) / 2)
    drained = time.monotonic() + DRAIN_SECONDS
    for pump in pumps:
        pump.join(max(0.0, drained - time.monotonic()))
    if _is_recorded(code, environment):
        return EXIT_TIMED_OUT if timed_out else code
    return _dead_child(
        code,
        environment,
        timed_out=timed_out,
        terminated=terminated.is_set(),
        out_of_memory=_out_of_memory_kills() > earlier_kills,
    )


def _start(environment: dict[str, str]) -> tuple[spawn.Child, list[threading.Thread]]:
    """Start the child; returns it and the threads that pass its output on."""
    control = _control(environment)
    child = spawn.start([sys.executable, "-m", *sys.argv[1:]], environment, control)
    for descriptor in control:
        os.close(descriptor)
    return child, [
        _pump(child.stdout, sys.stdout.buffer),
        _pump(child.stderr, sys.stderr.buffer),
    ]


def _is_driver() -> bool:
    """Whether the child has step sandboxes: it drives a `per_step` run, by its manifest."""
    return sys.argv[1] == DRIVER_MODULE or (sys.argv[1] == DYNAMIC_MODULE and len(sys.argv) > 2)


def _child_environment(home: Path) -> dict[str, str]:
    """A private home and ZenML configuration: processes that share one crash each other."""
    binaries = str(Path(sys.executable).parent)
    reason_file = home / "end-reason"
    config = home / "zenml"
    config.mkdir()
    return {
        **os.environ,
        "HOME": str(home),
        "ZENML_CONFIG_PATH": str(config),
        "ZENML_CUSTOM_SOURCE_ROOT": str(Path.cwd()),
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)]),
        END_REASON_FILE: str(reason_file),
        STOP_FILE: str(home / "stop"),
        EXIT_CODE_FILE: str(home / "word"),
    }


def _control(environment: dict[str, str]) -> tuple[int, ...]:
    """Our standard input as another descriptor for the child, whose own one is empty."""
    try:
        descriptor = os.dup(0)
    except OSError:
        return ()
    environment[CONTROL] = str(descriptor)
    return (descriptor,)


def _pump(source: IO[bytes] | None, sink: IO[bytes]) -> threading.Thread:
    assert source is not None

    def run() -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while chunk := source.read(CHUNK):
            sink.write(decode(chunk).encode())
            sink.flush()
        sink.write(decode(b"", True).encode())
        sink.flush()

    # A daemon: a grandchild that keeps the pipe open must not keep the sandbox alive.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _end(child: spawn.Child, grace: float) -> int:
    """SIGTERM, then after `grace` seconds SIGKILL; returns the exit code."""
    child.terminate()
    try:
        return child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _dead_child(
    code: int,
    environment: dict[str, str],
    *,
    timed_out: bool,
    terminated: bool,
    out_of_memory: bool,
) -> int:
    """Have the end of a child that could not record it recorded; returns the exit code."""
    child = "step's process" if STEP in environment else "driver" if _is_driver() else "runner"
    if timed_out:
        reason, result = f"The {_whose()} took longer than its timeout.", EXIT_TIMED_OUT
    elif terminated:
        reason, result = TERMINATED_REASON, EXIT_TERMINATED
    elif code == -signal.SIGKILL:
        reason = (
            f"The {child} was killed because the sandbox ran out of memory."
            if out_of_memory
            else f"The {child} was killed (SIGKILL)."
        )
        result = _out_of_memory_code() if out_of_memory else EXIT_KILLED
    elif code < 0:
        reason = f"The {child} died of {_signal_name(-code)}."
        result = EXIT_FAILED
    else:
        reason, result = f"The {child} ended with exit code {code}.", EXIT_FAILED
    if not timed_out:
        _say(reason)
    unrecorded = not timed_out and code == EXIT_UNRECORDED == _said(environment)
    if STEP in environment and (unrecorded or result in {EXIT_KILLED, EXIT_TERMINATED}):
        # The driver judges it: it may have the step executed again, for the same record.
        return EXIT_UNRECORDED if unrecorded else result
    if RUN_ID in environment:
        # A driver has step sandboxes to end, which its manifest leads to.
        manifest = sys.argv[2:]
        command = [sys.executable, "-m", "modalrun.driver.finalize", reason, *manifest]
        subprocess.run(command, env=environment, check=False)
    return result


def _is_recorded(code: int, environment: Mapping[str, str]) -> bool:
    """Whether the child has recorded in ZenML what its exit code says."""
    if STEP in environment and _said(environment) != code:
        # It ended with `os._exit` in the user's code.
        return False
    return code in _WORDS_SAID


def _said(environment: Mapping[str, str]) -> int | None:
    """The exit code that a step's process meant to end with."""
    try:
        return int(Path(environment[EXIT_CODE_FILE]).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _whose() -> str:
    return "step" if STEP in os.environ else "run"


def _out_of_memory_code() -> int:
    return EXIT_OUT_OF_MEMORY if STEP in os.environ else EXIT_FAILED


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Real-time signals have no names of their own.
        return f"signal {number}"


def _out_of_memory_kills() -> int:
    """How many processes of this cgroup the kernel killed for want of memory; 0 if unknown."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _say(text: str) -> None:
    sys.stderr.write(f"modalrun: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Pumps may still sit in a pipe that a grandchild holds open; nothing waits for them.
    os._exit(status)
