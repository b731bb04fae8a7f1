"""Faults of the machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from modalrun.util.machine import MIN_ADDRESS_SPACE, machine_error

UNLIMITED = """
import resource, sys
from modalrun.errors import UsageError
from modalrun.util.machine import require_memory
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
try:
    require_memory()
except UsageError as error:
    sys.exit(error.message)
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "/a/b"), "/a/b: No space left on device."),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid cross-device"),
        (FileNotFoundError(2, "No such file or directory", "caf\udce9"), r"caf\xe9: No such file"),
        (PermissionError("odd"), "odd."),
        (OSError(), "OSError."),
        (MemoryError(), "This machine has no memory left"),
    ],
)
def test_each_fault_names_its_file_and_reason(error: OSError | MemoryError, message: str) -> None:
    known = machine_error(error, creates_run=True)

    assert known.message.startswith(message)
    assert known.exit_code == 8
    assert known.hint
    assert known.__cause__ is error
    known.message.encode()


@pytest.mark.parametrize("creates_run", [True, False])
def test_output_that_can_not_be_written(monkeypatch: pytest.MonkeyPatch, creates_run: bool) -> None:
    # Closing it fails too.
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        print("it does not fit")

        known = machine_error(OSError(28, "No space left on device"), creates_run=creates_run)

        assert known.message == "The output can't be written: No space left on device."
        assert (known.hint is not None) == creates_run


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_too_low_a_limit_on_memory_is_an_error() -> None:
    def run(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", UNLIMITED, str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    low = run(MIN_ADDRESS_SPACE - 1)
    assert (low.returncode, "needs at least 512 MiB" in low.stderr) == (1, True)
    assert run(MIN_ADDRESS_SPACE).returncode == 0
