"""What to do about a failure, by the reason that is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from modalrun.run.failure import Failure, of_steps
from modalrun.run.failure_hints import hint_on_end, hint_on_failure
from modalrun.run.metadata import Announced
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.sandbox_exit import ModalStatus, read_exit


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (str(Failure("No module named 'pandas.io'", "ModuleNotFoundError")), "'pandas.io'"),
        (of_steps({"a": "ModuleNotFoundError: No module named 'x' (a.py:1)"}), "[PACKAGE]"),
        ("The step took longer than its timeout of 20 s. (train.py:7)", "timeout"),
        ("The run took longer than its timeout of 20 s.", "timeout"),
        ("The sandbox reached its timeout.", "timeout"),
        ("The sandbox ran out of memory.", "memory"),
        ("The sandbox needed more memory than its limit of 512 MiB.", "memory_limit"),
        ("train: The step's process was killed (SIGKILL).", "memory"),
        ("The step's process ended with exit code 7.", "os._exit"),
        ("The step's process was killed because the sandbox ran out of memory.", "memory"),
        (of_steps({"a": str(Failure("", "MemoryError", "a.py:1"))}), "resources: memory"),
        (str(Failure("Unable to allocate 8 GiB", "_ArrayMemoryError")), "resources: memory"),
    ],
)
def test_a_reason_with_a_known_remedy(reason: str, word: str) -> None:
    assert word in (hint_on_failure(reason) or "")


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("The step's process was killed (SIGKILL).", "if the machine had no more"),
        ("The step's process was killed because the sandbox ran out of memory.", "the machine"),
        ("MemoryError: ", "ulimit"),
    ],
)
def test_the_local_server_limits_no_memory(reason: str, word: str) -> None:
    failed = StepRecord("a", "failed", failure=Failure(reason), target="local")
    run = RunRecord("r", "n", "p", "failed", datetime.now(), reason=reason)
    run = replace(run, announced=Announced("local", "pipeline", "app"))
    for hint in (failed.next, run.next):
        assert word in (hint or "") and "resources: memory" not in (hint or "")


@pytest.mark.parametrize(
    "reason",
    [
        None,
        "",
        "ValueError: No module named 'x'",
        "KeyError: 'memory'",
        "OutOfMemoryError: CUDA out of memory.",
        "The init hook's process ended with exit code 5.",
    ],
)
def test_a_reason_without_one(reason: str | None) -> None:
    assert hint_on_failure(reason) is None


def test_a_driver_gets_no_more_memory() -> None:
    end = read_exit(137, ModalStatus.KERNEL_OOM_KILL)
    assert hint_on_end(end, "per_step", "modal") is None
    assert "resources: memory" in (hint_on_end(end, "pipeline", "modal") or "")
    assert "the machine" in (hint_on_end(end, "pipeline", "local") or "")
