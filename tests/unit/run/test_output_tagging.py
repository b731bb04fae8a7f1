"""Whose lines are whose, where several steps print in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import modalrun
from modalrun.run import events
from modalrun.run.event_proof import KEY_BYTES, Output, ProofReader
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import LogLine, RunLines

PRELUDE = """
import os, subprocess, sys, threading
from modalrun.run import output_tagging
output_tagging.install()
"""


def printed(
    code: str, source: str = "stdout", *, prelude: str = PRELUDE
) -> list[tuple[str | None, str]]:
    """The lines that a process prints, each with its step as those who look on see it."""
    tree = str(Path(modalrun.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        env={**os.environ, "PYTHONPATH": tree},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    lines = RunLines("sb")
    items = lines.feed("sb", source, getattr(done, source)) + lines.end("sb", source)
    return [(item.step, item.text) for item in items if isinstance(item, LogLine)]


def test_sequential_steps() -> None:
    code = """
print("before")
for name in ("load", "train"):
    with output_tagging.tagged(name):
        print(name, 1)
        thread = threading.Thread(target=print, args=(name, "thread"))
        thread.start(); thread.join()
        subprocess.run(["echo", name, "child"], check=True)
        sys.stdout.write(f"{name} unfinished")
print()
print("after")
"""
    assert printed(code) == [
        (None, "before"),
        ("load", "load 1"),
        ("load", "load thread"),
        ("load", "load child"),
        ("load", "load unfinished"),
        ("train", "train 1"),
        ("train", "train thread"),
        ("train", "train child"),
        ("train", "train unfinished"),
        (None, ""),
        (None, "after"),
    ]


def test_parallel_steps() -> None:
    code = """
def step(name):
    with output_tagging.tagged(name):
        barrier.wait()
        for n in range(500):
            print(name, n, file=sys.stderr)
            sys.stderr.write(f"{name} ")
            sys.stderr.write(f"pieces {n}\\n")
        sys.stderr.write(f"{name} unfinished")
        barrier.wait()
barrier = threading.Barrier(3)
threads = [threading.Thread(target=step, args=(name,)) for name in "abc"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    lines = printed(code, "stderr")
    for name in "abc":
        expected = [t for n in range(500) for t in (f"{name} {n}", f"{name} pieces {n}")]
        assert [text for step, text in lines if step == name] == [*expected, f"{name} unfinished"]
    assert {step for step, _ in lines} == {"a", "b", "c"}


def test_output_of_a_child_process_during_parallel_steps_has_no_step() -> None:
    code = """
def other():
    with output_tagging.tagged("other"):
        started.set(); over.wait()
        print("other")
started, over = threading.Event(), threading.Event()
with output_tagging.tagged("first"):
    thread = threading.Thread(target=other); thread.start(); started.wait()
    print("first")
    subprocess.run(["echo", "child"], check=True)
    over.set(); thread.join()
    subprocess.run(["echo", "child alone"], check=True)
"""
    assert printed(code) == [
        ("first", "first"),
        (None, "child"),
        ("other", "other"),
        ("first", "child alone"),
    ]


def test_output_of_an_untagged_thread_has_no_step() -> None:
    # A dynamic pipeline's function, which starts steps in threads with copies of its context.
    code = """
import contextvars
def other():
    with output_tagging.tagged("other"):
        started.set(); over.wait()
        print("other")
        subprocess.run(["echo", "child"], check=True)
started, over = threading.Event(), threading.Event()
output_tagging.untag_thread()
context = contextvars.copy_context()
thread = threading.Thread(target=context.run, args=(other,)); thread.start(); started.wait()
print("function")
over.set(); thread.join()
with output_tagging.tagged("inline"):
    print("inline")
print("function again")
"""
    assert printed(code) == [
        (None, "function"),
        ("other", "other"),
        ("other", "child"),
        ("inline", "inline"),
        (None, "function again"),
    ]


def test_a_replaced_write_method_is_kept() -> None:
    # As ZenML does when it is imported, which in a warm process is before anything else.
    code = """
inner = sys.stdout.write
sys.stdout.write = lambda text: inner(text.upper())
stream = sys.stdout
output_tagging.install()
with output_tagging.tagged("one"):
    print("a", "b", flush=True)
    assert sys.stdout is stream
"""
    assert printed(code, prelude=PRELUDE.replace("output_tagging.install()", "")) == [
        ("one", "A B")
    ]


def test_an_event_does_not_split_a_line_of_the_function() -> None:
    # `print` writes a line and its end separately; another thread may emit an event in between.
    code = """
from modalrun.run.reporting import emit_step_event
output_tagging.untag_thread()
sys.stdout.write("function")
thread = threading.Thread(target=emit_step_event, args=("one", "starting"))
thread.start(); thread.join()
sys.stdout.write(" waits\\n")
print("unfinished", end="", flush=True)
"""
    assert printed(code) == [(None, "function waits"), (None, "unfinished")]


PROVED = """
import os, sys, threading
from modalrun.run import contract, output_tagging
from modalrun.run.reporting import emit_step_event, prove_events
pipe, sink = os.pipe()
os.write(sink, bytes(range(32)))
os.environ[contract.EVENT_KEY] = str(pipe)
prove_events()
output_tagging.install()
output_tagging.untag_thread()
sys.setswitchinterval(1e-6)
"""


def proved(code: str, number: int) -> tuple[list[tuple[str | None, str]], list[StepEvent]]:
    """The lines that a process prints to a stream, and the step events that are believed."""
    done = subprocess.run(
        [sys.executable, "-c", PROVED + code],
        env={**os.environ, "PYTHONPATH": str(Path(modalrun.__file__).parents[1])},
        capture_output=True,
        check=True,
        timeout=60,
    )
    reader = ProofReader(bytes(range(KEY_BYTES)), number, Output())
    shown = reader.feed(done.stdout if number == 1 else done.stderr, final=True).decode()
    lines, source = RunLines("sb"), "stdout" if number == 1 else "stderr"
    items = lines.feed("sb", source, shown) + lines.end("sb", source)
    found = [event for line in shown.split("\n") if (event := events.read(line)) is not None]
    return (
        [(item.step, item.text) for item in items if isinstance(item, LogLine)],
        [event for event in found if isinstance(event, StepEvent)],
    )


@pytest.mark.parametrize("number", [1, 2])
def test_all_events_of_parallel_steps_are_believed(number: int) -> None:
    code = f"""
def step(name):
    barrier.wait()
    for n in range(100):
        emit_step_event(name, "running", attempt=n + 1)
        with output_tagging.tagged(name):
            [sys.stdout, sys.stderr][{number} - 1].write(f"{{name}} {{n}}\\n")
barrier = threading.Barrier(4)
threads = [threading.Thread(target=step, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    lines, found = proved(code, number)
    for name in "abcd":
        assert [text for step, text in lines if step == name] == [f"{name} {n}" for n in range(100)]
        attempts = [event.attempt for event in found if event.step == name]
        assert attempts == (list(range(1, 101)) if number == 1 else [])
    assert len(lines) == 400


def test_the_output_of_a_fork_beside_parallel_steps_has_no_step() -> None:
    # Its events would take the numbers of this process's.
    code = """
def other():
    with output_tagging.tagged("other"):
        started.set(); over.wait()
        print("other")
started, over = threading.Event(), threading.Event()
with output_tagging.tagged("first"):
    thread = threading.Thread(target=other); thread.start(); started.wait()
    print("unfinished", end="")
    if (child := os.fork()) == 0:
        for n in range(3):
            print("fork", n)
        os._exit(0)
    os.waitpid(child, 0)
    print(" first")
    over.set(); thread.join()
"""
    lines, _ = proved(code, 1)
    assert lines == [
        *((None, f"fork {n}") for n in range(3)),
        ("first", "unfinished first"),
        ("other", "other"),
    ]


def test_a_fork_can_print_whatever_other_threads_do() -> None:
    code = """
def other():
    with output_tagging.tagged("other"):
        while not over.is_set():
            print("other")
over = threading.Event()
thread = threading.Thread(target=other); thread.start()
with output_tagging.tagged("first"):
    for n in range(50):
        if (child := os.fork()) == 0:
            print("fork", n)
            os._exit(0)
        os.waitpid(child, 0)
over.set(); thread.join()
"""
    lines, _ = proved(code, 1)
    assert [text for step, text in lines if step != "other"] == [f"fork {n}" for n in range(50)]


def test_the_next_process_begins_without_a_step_on_both_streams() -> None:
    # The one before may have died in a step, and both write to one output.
    code = "print('new', file=sys.stderr)"
    lines = RunLines("sb")
    step = f"{events.line(events.LinesOf('died'))}last\n"
    done = subprocess.run(
        [sys.executable, "-c", PROVED.replace("prove_events()", "") + code],
        env={**os.environ, "PYTHONPATH": str(Path(modalrun.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    items = lines.feed("sb", "stderr", step + done.stderr)
    assert [(item.step, item.text) for item in items if isinstance(item, LogLine)] == [
        ("died", "last"),
        (None, "new"),
    ]
