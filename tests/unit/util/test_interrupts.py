"""Signals and keys, in real processes and on a real pseudo-terminal."""

import os
import pty
import queue
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest

from modalrun.util import interrupts

LISTENING = """
import os, queue, signal
from modalrun.util import interrupts
# Whoever runs the tests in the background has them ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
inbox = queue.SimpleQueue()
{before}
with interrupts.listening(inbox.put):
    {inside}
    print(inbox.get())
interrupts.check()
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ("", "os.kill(os.getpid(), signal.SIGTERM)"),
        ("try: os.kill(os.getpid(), signal.SIGTERM)\nexcept BaseException: pass", "pass"),
    ],
)
def test_a_listener_gets_signals_and_later_ones_are_raised_again(before: str, inside: str) -> None:
    code = LISTENING.format(before=before, inside=inside)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"{int(signal.SIGTERM)}\n"
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_keys_come_one_by_one_and_the_terminal_is_left_as_it_was() -> None:
    keyboard, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    pressed: queue.SimpleQueue[str] = queue.SimpleQueue()
    try:
        with interrupts.keys(terminal, pressed.put):
            os.write(keyboard, b"sg")
            assert [pressed.get(timeout=10), pressed.get(timeout=10)] == ["s", "g"]
        assert termios.tcgetattr(terminal) == before
        os.write(keyboard, b"later\n")
        assert os.read(terminal, 100) == b"later\n", "nothing goes on reading"
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_what_blocks_is_left_behind() -> None:
    released = threading.Event()
    began = time.monotonic()
    interrupts.within(0.05, released.wait)
    assert time.monotonic() - began < 10
    released.set()
    done: list[int] = []
    interrupts.within(None, lambda: done.append(1))
    interrupts.within(10, lambda: done.append(2))
    assert done == [1, 2]

    def fail() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        interrupts.within(10, fail)


DEFERRED = """
import os, signal, threading, time
from modalrun.util import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
# The kernel gives a signal to any thread that does not block it.
threading.Thread(target=time.sleep, args=(10,), daemon=True).start()
try:
    with interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        print("the block has ended")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_deferred_signal_comes_after_the_block_in_a_process_with_threads() -> None:
    command = [sys.executable, "-c", DEFERRED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "the block has ended\ninterrupted\n", done.stderr
