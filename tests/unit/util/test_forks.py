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
