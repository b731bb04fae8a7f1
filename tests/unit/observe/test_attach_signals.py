"""Notice a signal that the kernel gives another thread than the main one."""

from __future__ import annotations

import signal
import sys
import threading
import time

import pytest

from modalrun.errors import Interrupted
from modalrun.observe import attach
from tests.unit.observe.test_attach import Bench

LONG = 20.0


def test_a_signal_that_another_thread_gets_detaches() -> None:
    bench, main, over = Bench(), threading.get_ident(), threading.Event()

    def interrupt() -> None:
        # It waits in a queue, in C.
        while sys._current_frames()[main].f_code.co_filename != attach.__file__:
            time.sleep(0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        if not over.wait(LONG):
            bench.ends(0, "completed")

    begin = bench.observer.phase

    def phase(text: str) -> None:
        begin(text)
        threading.Thread(target=interrupt, daemon=True).start()

    bench.observer.phase = phase  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        bench.follow("detach")
    over.set()
