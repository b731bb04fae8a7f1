"""Run small child processes under the supervisor.

The children are modules in a temporary folder. A `sitecustomize` beside them replaces
`modalrun.driver.finalize`, which would start ZenML, and records its arguments.
"""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modalrun.run.event_proof import END

FINALIZE = """
import os, sys, time
if "modalrun.driver.finalize" in sys.orig_argv:
    assert 0 <= time.time() - float(os.environ["MODALRUN_ENDED"]) < 60
    if os.path.exists("slow"):
        print("recording", file=sys.stderr, flush=True)
        while os.path.exists("slow"):
            time.sleep(0.01)
    with open(os.environ["FINALIZED"], "a") as file:
        file.write(os.environ["MODALRUN_RUN_ID"] + ": " + sys.orig_argv[-1])
    os._exit(0)
"""

MAIN = """
import os, sys
from modalrun.driver import supervisor
code = supervisor.main()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""
"""The supervisor's own last lines."""

QUICK = """
from modalrun.driver import supervisor
supervisor.TERMINATE_GRACE_SECONDS = supervisor.DRAIN_SECONDS = 0.3
"""
"""Makes its waits shorter."""

DEADLINE = """
import os, time
from modalrun.driver import supervisor
wait = supervisor._wait
def wait_from_the_start(child, seconds, environment):
    while not os.path.exists("ready"):
        time.sleep(0.01)
    with open("left", "w") as file:
        file.write(str(seconds))
    return wait(child, 0, environment)
supervisor._wait = wait_from_the_start
"""
"""Lets the deadline come once the child has created the file `ready`, however slow that is, and
writes the seconds that were left into `left`."""

DRIVER = "from modalrun.run import contract\ncontract.DRIVER_MODULE = 'child'\n"
"""Makes the child a driver."""

LAST = f"{END}\n".encode()
"""What the supervisor itself prints at last."""

WAITING = """
import os, signal, time
from modalrun.driver.processes.process import leave
def end(signum, frame):
    # Not print: the signal may come while that is at work.
    os.write(1, b"told\\n")
    leave({code})
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
# A signal just before `signal.pause` would not end it.
while True:
    time.sleep(0.01)
"""
"""A child that prints `ready` and exits on SIGTERM."""


class Bench:
    """Run children under the supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finalized_file = folder / "finalized"
        (folder / "sitecustomize.py").write_text(FINALIZE, encoding="utf-8")
        (folder / "tmp").mkdir()

    def command(self, child: str, first: str = "") -> list[str]:
        """Return a command that runs a child; the supervisor's process executes `first` first."""
        (self.folder / "child.py").write_text(textwrap.dedent(child), encoding="utf-8")
        how = ["-c", first + MAIN] if first else ["-m", "modalrun.driver.supervisor"]
        return [sys.executable, *how, "child"]

    def environment(
        self, timeout: float, run_id: str | None, step: str | None = None
    ) -> dict[str, str]:
        environment = {
            **os.environ,
            "MODALRUN_TIMEOUT": str(timeout),
            "MODALRUN_CREATED": str(time.time()),
            "FINALIZED": str(self.finalized_file),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path]),
        }
        for name in ("MODALRUN_RUN_ID", "MODALRUN_STEP"):
            environment.pop(name, None)
        if step is not None:
            environment["MODALRUN_STEP"] = step
        if run_id is not None:
            environment["MODALRUN_RUN_ID"] = run_id
        return environment

    def run(
        self,
        child: str,
        *,
        timeout: float = 100,
        run_id: str | None = "some-run",
        step: str | None = None,
        first: str = "",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a child to its end; the result has the output without the last line."""
        done = subprocess.run(
            self.command(child, first),
            env=self.environment(timeout, run_id, step),
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=60,
        )
        done.stdout, done.stderr = done.stdout.removesuffix(LAST), done.stderr.removesuffix(LAST)
        return done

    @contextmanager
    def started(
        self,
        child: str,
        *,
        first: str = "",
        step: str | None = None,
        group: bool = False,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A supervisor whose child has printed `ready` and sits in what comes after it.

        With `group` it leads a process group of its own, as below the init of a sandbox.
        """
        with subprocess.Popen(
            self.command(child, first),
            env=self.environment(100, "some-run", step),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=group,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
            process.wait(30)

    def finalized(self) -> str | None:
        """Return what finalize was called with; None if it was not called."""
        return self.finalized_file.read_text("utf-8") if self.finalized_file.exists() else None
