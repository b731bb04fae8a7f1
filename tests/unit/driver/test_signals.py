"""How a process that runs a step takes SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modalrun.driver.processes.process import Signals, Terminated
from tests.unit.driver.supervisor_bench import DEADLINE, Bench


@pytest.fixture(autouse=True)
def _restored_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_code_of_a_step_unwinds() -> None:
    signals = Signals()

    with pytest.raises(Terminated), signals.in_user_code():
        signals(signal.SIGTERM, None)

    assert signals.came


def test_a_step_whose_code_has_returned_is_recorded_first() -> None:
    signals = Signals()

    with signals.in_user_code():
        pass
    # Else this process would end.
    signals(signal.SIGTERM, None)

    assert not signals.came


def test_what_stores_the_outputs_is_not_interrupted_by_the_handler_of_zenml() -> None:
    def interrupt(*_: object) -> None:
        raise RuntimeError("The execution was interrupted.")

    signals = Signals()
    signal.signal(signal.SIGTERM, interrupt)

    with signals.in_user_code():
        pass
    os.kill(os.getpid(), signal.SIGTERM)

    assert not signals.came


LATE = "The step took longer than its timeout of 20 s."


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", f"{LATE} The step's function had not begun."),
        ("with signals.in_user_code(): raise ValueError", LATE),
    ],
)
def test_a_step_that_had_not_begun_at_the_deadline(tmp_path: Path, code: str, reason: str) -> None:
    child = f"""
    import contextlib, pathlib, signal, time
    from modalrun.driver.processes.process import Signals
    signal.signal(signal.SIGTERM, signals := Signals())
    with contextlib.suppress(ValueError):
        {code}
    pathlib.Path("ready").touch()
    time.sleep(60)
    """
    bench = Bench(tmp_path)
    assert bench.run(child, timeout=20, step="train", first=DEADLINE).returncode == 124
    assert bench.finalized() == f"some-run: {reason}"


CHILD = """
import sys
from modalrun.driver.processes.process import die_with_parent
die_with_parent()
print("ready", flush=True)
sys.stdin.read()
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the group of a sandbox is killed")
def test_a_step_does_not_outlive_its_supervisor() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"ready\n"

        os.kill(supervisor.pid, signal.SIGKILL)

        # The end of the child closes the pipe; its input stays open.
        assert supervisor.stdout.read() == b""
