"""Pass the output of a supervisor's children on, as the only writer to the sandbox's output."""

from __future__ import annotations

import codecs
import contextlib
import select
import sys
import threading
import time
from typing import IO

from modalrun.driver.lines.last_lines import LastLines
from modalrun.driver.lines.throttle import Throttle
from modalrun.driver.processes.spawn import Child
from modalrun.run.event_proof import END, MARK, Output, ProofReader

CHUNK = 65_536

last_lines = LastLines()
"""The last lines that the children have printed."""

_outputs = {1: Output(), 2: Output()}
_locks = {1: threading.Lock(), 2: threading.Lock()}


def pump(child: Child, key: bytes) -> list[threading.Thread]:
    """Start threads that pass on what a child prints; `key` proves its events."""
    return [
        _pump(child.stdout, sys.stdout.buffer, key, 1),
        _pump(child.stderr, sys.stderr.buffer, key, 2),
    ]


def write_event(event: bytes) -> bool:
    """Write an event of the supervisor to stdout; return False within a line, and write nothing."""
    with _locks[1], contextlib.suppress(OSError):
        if _outputs[1].at_start:
            sys.stdout.buffer.write(_outputs[1].event(event))
            sys.stdout.buffer.flush()
            return True
    return False


def write_end() -> None:
    """Write the last line of both streams: whoever has it has everything before it."""
    for number, sink in ((1, sys.stdout.buffer), (2, sys.stderr.buffer)):
        with _locks[number], contextlib.suppress(OSError):
            sink.write(_outputs[number].event(END.removeprefix(MARK).encode()))
            sink.flush()


def _pump(source: IO[bytes] | None, sink: IO[bytes], key: bytes, number: int) -> threading.Thread:
    assert source is not None
    reader = ProofReader(key, number, _outputs[number])
    throttle = Throttle()
    poll = select.poll()
    poll.register(source, select.POLLIN)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(data: bytes, *, final: bool = False) -> None:
        text = decode(data, final)
        # What an earlier child has left may print to the same stream.
        with _locks[number]:
            sink.write(reader.feed(text.encode(), final=final))
            sink.flush()

    def run() -> None:
        while True:
            if throttle.due is not None:
                left = max(0.0, throttle.due - time.monotonic())
                if not poll.poll(left * 1000):
                    write(throttle.rest())
            if not (chunk := source.read(CHUNK)):
                break
            last_lines.add(chunk)
            write(throttle.feed(chunk, time.monotonic()))
        write(throttle.rest(), final=True)

    # A daemon: a grandchild that keeps the pipe open must not keep the sandbox alive.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
