"""Processes that user code forks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from modalrun.util import forks

with forks.ended():
    child = os.fork()
    if child == 0 and sys.argv[1] == "raises":
        raise ValueError("in the child")
print("once", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.parametrize(("way", "code"), [("returns", 0), ("raises", 1)])
def test_only_the_parent_leaves_the_block(way: str, code: int) -> None:
    command = [sys.executable, "-c", PROGRAM, way]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == (f"once {code}\n", "")


SIGNALS = """
import os, signal, sys
from modalrun.util import forks

def parents(*_):
    raise RuntimeError("that is the parent's")

def own(*_):
    os._exit(3)

signal.signal(signal.SIGTERM, parents)
with forks.ended():
    if sys.argv[1] == "own":
        signal.signal(signal.SIGTERM, own)
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"x")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(signal.getsignal(signal.SIGTERM).__name__)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.parametrize(("whose", "said"), [("parents", "-15\nparents\n"), ("own", "3\nown\n")])
def test_a_fork_has_the_signals_of_a_script_or_the_codes_own(whose: str, said: str) -> None:
    command = [sys.executable, "-c", SIGNALS, whose]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == (said, "")
