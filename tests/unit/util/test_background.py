"""Calls in another thread."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, threading
from modalrun.util import interrupts
from modalrun.util.background import in_background

interrupts.install()
begun, made = threading.Event(), []

def call():
    begun.set()
    os.kill(os.getpid(), signal.SIGINT)
    # The main thread is interrupted before this ends.
    while interrupts.pending() is None:
        pass
    made.append(1)

try:
    in_background(call, grace=60)
except KeyboardInterrupt:
    print("made", made)
"""


def test_a_signal_waits_for_what_the_call_creates() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "made [1]\n", done.stderr
