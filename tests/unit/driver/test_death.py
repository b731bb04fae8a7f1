"""What is said of a process that the kernel has killed for want of memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from modalrun.driver import death
from modalrun.run import contract
from modalrun.run.usage_log import Reading, add

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("limit", "sampled", "highest", "said"),
    [
        (2048, 2040, 1900, ": it needed more than 2,048 MiB, peak 2,040 MiB 3 s before the end."),
        (2048, 700, 2045, ": it needed more than 2,048 MiB, peak 2,045 MiB."),
        (None, 2040, 1900, ": peak 2,040 MiB 3 s before the end."),
        (2048, None, 0, ": it needed more than 2,048 MiB."),
        (None, None, 0, "."),
    ],
)
def test_what_it_needed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None,
    sampled: int | None,
    highest: int,
    said: str,
) -> None:
    monkeypatch.setattr(death, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n" if limit is None else f"{limit * MIB}\n")
    log = tmp_path / "usage"
    log.touch()
    now = time.time()
    if sampled is not None:
        add(str(log), Reading("sample", now - 3, 7, 1.0, sampled * MIB))
        add(str(log), Reading("death", now, 7, 1.0, 0, highest * MIB))
    environment = {contract.USAGE_FILE: str(log)}
    found = death.describe("step's process", 7, -9, environment, out_of_memory=True)
    assert found == f"The step's process was killed because the sandbox ran out of memory{said}"
