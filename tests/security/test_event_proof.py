"""Row 2: a line of user code never passes for an event; real supervisors and workers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.run import events
from modalrun.run.event_proof import KEY_BYTES, Output, ProofReader, Prover
from modalrun.run.events import StepEvent

FORGED = (
    '\x1e{"modalrun": "step", "step": "after", "state": "completed", "at": 1.0,'
    ' "sandbox": "sb-FORGED", "reason": "FORGED"}\n'
)
KEY = bytes(range(KEY_BYTES))
EVENT = StepEvent("train", "completed", at=1.0, reason="it is proved")


def relay(pieces: list[bytes], key: bytes = KEY) -> bytes:
    reader = ProofReader(key, 1, Output())
    return b"".join(map(reader.feed, pieces)) + reader.feed(b"", final=True)


def proven(number: int = 1, stream: int = 1) -> bytes:
    prover = Prover(bytearray(KEY))
    return [prover.prove(events.line(EVENT), stream).encode() for _ in range(number)][-1]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


HOSTILE = st.lists(
    st.sampled_from(
        [
            FORGED.encode(),
            FORGED.encode()[:9],
            FORGED.encode()[9:],
            b"\x1e",
            b"\x1e#",
            b"\x1e#1#" + b"0" * 64 + b'{"modalrun": "step"}\n',
            proven(stream=2),
            b"\n",
            b"text",
            b"\xff\x00",
        ]
    ),
    max_size=30,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(HOSTILE, st.lists(st.integers(0, 10_000), max_size=20))
def test_hostile_bytes_never_become_an_event_and_else_stay(data: bytes, places: list[int]) -> None:
    shown = relay(cut(data, places))
    assert events.PREFIX.encode() not in shown
    assert shown.replace(b'"modalrun?"', b'"modalrun"') == data


@settings(max_examples=300, deadline=None)
@given(HOSTILE, HOSTILE, st.lists(st.integers(0, 10_000), max_size=20))
def test_a_proven_event_arrives_between_hostile_bytes(
    before: bytes, after: bytes, places: list[int]
) -> None:
    # An event is a write of its own, but a reader may cut it.
    shown = relay(cut(before + proven() + after, places))
    line = events.line(EVENT).encode()
    assert shown.count(events.PREFIX.encode()) == 1
    assert f"\n{line.decode()}".encode() in b"\n" + shown


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(proven() + proven(), id="the same again"),
        pytest.param(proven(2) + proven(1), id="an earlier one"),
        pytest.param(proven() + proven().replace(b"train", b"after"), id="a changed one"),
        pytest.param(proven() + proven(2, stream=2), id="that of the other stream"),
    ],
)
def test_what_was_proved_proves_nothing_else(data: bytes) -> None:
    assert relay([data]).count(events.PREFIX.encode()) == 1


def test_a_forgotten_key_is_overwritten() -> None:
    key = bytearray(KEY)
    prover = Prover(key)
    prover.forget()
    assert relay([prover.prove(events.line(EVENT), 1).encode()]).count(events.PREFIX.encode()) == 0


@pytest.mark.parametrize("unit", [b"\x1e", b"\x1e#", b"\x1e#1#" + b"0" * 64 + b"{", b"\x1e\n"])
def test_marks_cost_linear_time(unit: bytes) -> None:
    # Each byte is looked at a bounded number of times, so this ends at once.
    data = unit * (4_000_000 // len(unit))
    pieces = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
    assert relay(pieces) == data


ATTACKS = f"""
import ctypes, os, subprocess, sys, time
from pathlib import Path
FORGED = {FORGED!r}
def attack():
    whole = FORGED.encode()
    print(FORGED, end="", flush=True)
    print("in the middle " + FORGED, end="", file=sys.stderr, flush=True)
    for number in (1, 2):
        os.write(number, whole)
        for at in range(14):
            os.write(number, whole[at:at + 1])
            time.sleep(0.002)
        os.write(number, whole[14:])
    ctypes.CDLL(None).write(1, whole, len(whole))
    subprocess.run([sys.executable, "-c", f"print({{FORGED!r}})"], check=True)
    if os.fork() == 0:
        os.write(1, whole)
        os._exit(0)
    os.wait()
    process, reached = os.getppid(), []
    for _ in range(2):
        for number in (1, 2):
            try:
                Path(f"/proc/{{process}}/fd/{{number}}").open("wb", 0).write(whole)
                reached.append(number)
            except OSError:
                pass
        try:
            Path(f"/proc/{{process}}/mem").open("rb")
            reached.append("mem")
        except PermissionError:
            pass
        text = Path(f"/proc/{{process}}/stat").read_text()
        process = int(text.rpartition(")")[2].split()[1])
        if process == PARENT:
            break
    print("reached", reached, flush=True)
"""

STEP = """
import time
from modalrun.run.events import StepEvent
from modalrun.run.reporting import forget_key, prove_events, write_event
prove_events()
write_event(StepEvent("train", "running", at=1.0))
forget_key()
PARENT = int(__import__("os").environ["OUTSIDE"])
attack()
from modalrun.driver.processes.process import leave
leave(0)
"""

RUNNER = """
import asyncio, contextlib
from modalrun.driver.processes import privileges
from modalrun.driver.workers import worker
from modalrun.driver.processes.process import buffer_lines, leave
from modalrun.driver.workers.worker_pool import WorkerPool
from modalrun.run.reporting import emit_step_event, prove_events
PARENT = int(__import__("os").environ["OUTSIDE"])

class Steps:
    def initialize(self): pass
    def run(self, name, signals, failed):
        attack()
        return "completed"
    def cleanup(self): pass

class Worker(worker.Worker):
    def __init__(self, connection):
        self._connection, self._ready, self._loaded = connection, False, Steps()
        self._connected = True

worker.Worker = Worker

async def main():
    with contextlib.closing(WorkerPool()) as pool, pool.worker() as used:
        end = await used.ask("run", "train", step="train",
                             begun=lambda: emit_step_event("train", "running"))
        emit_step_event("train", end.state)

buffer_lines()
prove_events()
privileges.hide_process()
asyncio.run(main())
leave(0)
"""


@pytest.mark.parametrize(
    ("child", "step", "states"),
    [(STEP, "train", ["running"]), (RUNNER, None, ["running", "completed"])],
    ids=["step sandbox", "pipeline mode"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc")
def test_no_way_to_print_makes_an_event(
    tmp_path: Path, child: str, step: str | None, states: list[str]
) -> None:
    (tmp_path / "child.py").write_text(textwrap.dedent(ATTACKS) + child, encoding="utf-8")
    environment = {
        **os.environ,
        "MODALRUN_TIMEOUT": "100",
        "MODALRUN_CREATED": str(time.time()),
        "OUTSIDE": str(os.getpid()),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        **({"MODALRUN_STEP": step} if step else {}),
    }
    environment.pop("MODALRUN_RUN_ID", None)
    done = subprocess.run(
        [sys.executable, "-m", "modalrun.driver.supervisor", "child"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr.decode()
    found = [
        event
        for text in (done.stdout.decode(), done.stderr.decode())
        for line in text.split("\n")
        if (event := events.read(line)) is not None
    ]
    assert [event.state for event in found if isinstance(event, StepEvent)] == states
    assert not [event for event in found if "FORGED" in str(event)]
    # And the last line of each stream.
    assert (done.stdout + done.stderr).count(events.PREFIX.encode()) == len(found) + 2
    assert (done.stdout + done.stderr).count(b"FORGED") >= 2 * 8
    assert b"reached []" in done.stdout
