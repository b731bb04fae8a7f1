"""Notes that a process leaves for its parent."""

import os
from pathlib import Path

import pytest

from modalrun.run import contract, notes


def test_notes_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {contract.END_REASON_FILE: str(tmp_path / "end-reason")}
    notes.leave("reason", "nowhere to leave it")
    monkeypatch.setenv(contract.END_REASON_FILE, environment[contract.END_REASON_FILE])

    with notes.during("hook", "init"):
        assert notes.read("hook", os.getpid(), environment) == "init"
        assert notes.read("hook", os.getpid(), {}) is None
    assert notes.read("hook", os.getpid(), environment) is None

    notes.leave("reason", "It has no room: none at all.")
    assert notes.read("reason", os.getpid(), environment) == "It has no room: none at all."
    assert notes.read("reason", 1, environment) is None
