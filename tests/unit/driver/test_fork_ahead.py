"""A fork that is made before there are threads, for a program that runs later."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from modalrun.driver.processes import spawn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has warm processes")


class Program:
    """A warm process whose forks become a program that notes what it was given."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def suits(self, command: Sequence[str], _env: Mapping[str, str]) -> bool:
        return command[0] == "note"

    def become(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        text = os.read(0, 100).decode()
        self._file.write_text(f"{command} {dict(env)} {text} {os.getsid(0) == os.getpid()}")
        os._exit(0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, spawn.MARK, Program(tmp_path / "noted"), raising=False)
    # A worker of pytest-xdist has one more.
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    return tmp_path / "noted"


def made() -> spawn.Ahead:
    fork = spawn.ahead()
    assert fork is not None
    return fork


def test_it_becomes_the_program_with_its_input(file: Path) -> None:
    fork = made()
    thread = threading.Thread(target=fork.run, args=(["note", "é"], {"A": "1\n2"}, b"last\nlines"))
    thread.start()
    thread.join(60)
    assert file.read_text() == "['note', 'é'] {'A': '1\\n2'} last\nlines True"


def test_another_program_starts_as_usual(file: Path) -> None:
    fork = made()
    assert not fork.run(["other"], {}, b"")
    assert fork.run(["note"], {}, b"")


def test_it_may_have_been_killed(file: Path) -> None:
    fork = made()
    os.kill(fork._pid, signal.SIGKILL)
    os.waitid(os.P_PID, fork._pid, os.WEXITED | os.WNOWAIT)
    assert not fork.run(["note"], {}, b"x" * 1_000_000)
    assert not file.exists()


def test_it_ends_with_whoever_has_made_it(file: Path) -> None:
    fork = made()
    fork.close()
    os.waitpid(fork._pid, 0)
    assert not file.exists()


def test_none_is_made_where_nothing_is_imported() -> None:
    assert spawn.ahead() is None
