"""What is said of a process that the kernel has killed for want of memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from modalrun.driver.processes import death
from modalrun.run import contract
from modalrun.run.usage_log import Reading, add

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "said"),
    [
        (2048, (2040, 1900), ": it needed more than 2,048 MiB, peak 2,040 MiB 3 s before the end."),
        (2048, (700, 2045), ": it needed more than 2,048 MiB, peak 2,045 MiB."),
        (None, (2040, 1900), ": peak 2,040 MiB 3 s before the end."),
        (2048, None, ": it needed more than 2,048 MiB."),
        (None, None, "."),
    ],
)
def test_what_it_needed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None,
    used: tuple[int, int] | None,
    said: str,
) -> None:
    monkeypatch.setattr(death, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n" if limit is None else f"{limit * MIB}\n")
    log = tmp_path / "usage"
    log.touch()
    now = time.time()
    if used is not None:
        add(str(log), Reading("sample", now - 3, 7, 1.0, used[0] * MIB))
        add(str(log), Reading("death", now, 7, 1.0, 0, used[1] * MIB))
    environment = {contract.USAGE_FILE: str(log)}
    found = death.describe("step's process", 7, -9, environment, out_of_memory=True)
    assert found == f"The step's process was killed because the sandbox ran out of memory{said}"
