"""Calls in another thread."""

from __future__ import annotations

import subprocess
import sys

TWO = """
import os, signal
from modalrun.util import interrupts
from modalrun.util.background import in_background

interrupts.install()

def call():
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)

given_up = []
try:
    in_background(call, grace=60, give_up=lambda: given_up.append(1))
except BaseException as error:
    print(type(error).__name__, given_up)
"""

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


def test_two_signals_at_once_are_no_error_of_a_lock() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout in {"KeyboardInterrupt [1]\n", "Interrupted [1]\n"}, done
