"""Run the first process of a sandbox that is kept warm, with a step that starts no ZenML."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modalrun.driver.step_worker import Worker, _StepEnded, _until_end_of
from modalrun.run import contract, events
from modalrun.run.events import Event, LinesOf, OrderEnd
from modalrun.run.step_order import StepOrder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="steps are forked on Linux")

WORKER = """
import os, sys, threading
from modalrun.driver import step_worker
import child
sys.modules["modalrun.driver.step"] = child
step_worker._import = lambda: None
step_worker.ORPHAN_SECONDS = float(os.environ["PATIENCE"])
for _ in range(int(os.environ["THREADS"])):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
step_worker.main()
"""

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from modalrun.driver.processes.process import leave

def main():
    step = os.environ["MODALRUN_STEP"]
    kept = {n: os.environ.get(n) for n in ("TMPDIR", "OWN", "MODALRUN_ORDER", "MODALRUN_CREATED")}
    print(json.dumps({"step": step, "cwd": os.getcwd(), "stdin": sys.stdin.read(), **kept}))
    sys.stdout.flush()
    if step == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "kills":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if step == "waits":
        time.sleep(60)
    if step == "forges":
        print('\\x1e{"modalrun": "order", "order": "secret-forges", "exit_code": 0}', flush=True)
        print('\\x1e{"modalrun": "lines", "step": "another"}', flush=True)
    leave(int(os.environ.get("CODE", 0)))
"""


class Bench:
    """A worker whose orders come from the test."""

    def __init__(self, folder: Path, patience: float = 60) -> None:
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "child.py").write_text(CHILD, encoding="utf-8")
        self.patience = patience
        self.lines: list[bytes] = []
        self._pending = b""

    def start(self, step: str, threads: int = 0, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=self.source,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "PATIENCE": str(self.patience),
                "THREADS": str(threads),
                contract.KEEP_WARM: "0",
                contract.CREATED: "1800000000",
                contract.ORDER: self.order(step, **env),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def order(self, step: str, **env: str) -> str:
        values = {contract.STEP: step, contract.TIMEOUT: "100", **env}
        return StepOrder(f"secret-{step}", 1, values).to_json()

    def give(self, step: str, **env: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.order(step, **env)}\n".encode())
        self.process.stdin.flush()

    def until_end(self) -> list[bytes]:
        """Return the lines up to the report of a step's end."""
        assert self.process.stdout is not None
        until, lines = time.monotonic() + 120, list[bytes]()
        while time.monotonic() < until:
            line, found, rest = self._pending.partition(b"\n")
            if found:
                self._pending = rest
                lines.append(line)
                if isinstance(told(line), OrderEnd):
                    return lines
            elif select.select([self.process.stdout], [], [], 1)[0]:
                chunk = os.read(self.process.stdout.fileno(), 65_536)
                if not chunk:
                    return lines
                self._pending += chunk
        raise TimeoutError(lines)


def told(line: bytes) -> Event | None:
    return events.split(line.decode())[1]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()


def test_each_step_has_folders_and_variables_of_its_own(bench: Bench) -> None:
    bench.start("first", OWN="mine")
    first = bench.until_end()
    bench.give("second", CODE="1")
    second = bench.until_end()
    assert [told(line) for line in (first[0], first[-1])] == [
        LinesOf("first", 1),
        OrderEnd("secret-first", 0),
    ]
    assert told(second[-1]) == OrderEnd("secret-second", 1)
    one, two = json.loads(first[1]), json.loads(second[1])
    assert (one["OWN"], two["OWN"]) == ("mine", None)
    # The timeout of a later step counts from its order, not from the sandbox's creation.
    assert float(one["MODALRUN_CREATED"]) == 1_800_000_000
    assert abs(float(two["MODALRUN_CREATED"]) - time.time()) < 60
    for name in ("cwd", "TMPDIR"):
        assert one[name] != two[name]
        assert not Path(one[name]).exists()
    assert (one["stdin"], one["MODALRUN_ORDER"]) == ("", None)


def test_an_order_that_comes_twice_is_carried_out_once(bench: Bench) -> None:
    bench.start("first")
    bench.until_end()
    bench.give("first")
    bench.give("second")
    lines = bench.until_end()
    assert [told(line) for line in (lines[0], lines[-1])] == [
        LinesOf("second", 1),
        OrderEnd("secret-second", 0),
    ]


def test_where_a_fork_is_unsafe_the_step_is_a_new_program(bench: Bench) -> None:
    bench.start("first", threads=1)
    # It is the real step's process, which misses a variable.
    assert told(bench.until_end()[-1]) == OrderEnd("secret-first", contract.EXIT_UNRECORDED)


def test_a_step_whose_files_cannot_be_created_has_not_begun(bench: Bench) -> None:
    os.mkfifo(bench.source / "pipe")
    bench.start("first")
    assert told(bench.until_end()[-1]) == OrderEnd("secret-first", contract.EXIT_UNPREPARED)


def test_the_end_of_a_process_is_that_of_its_step(bench: Bench) -> None:
    bench.start("dies")
    assert told(bench.until_end()[-1]) == OrderEnd("secret-dies", 1)
    # A step that kills its supervisor is ended from outside, as in a sandbox of its own.
    bench.give("kills")
    assert told(bench.until_end()[-1]) == OrderEnd("secret-kills", contract.EXIT_KILLED)
    bench.give("waits", **{contract.TIMEOUT: "1", contract.STEP: "waits"})
    assert told(bench.until_end()[-1]) == OrderEnd("secret-waits", contract.EXIT_TIMED_OUT)
    bench.give("after")
    assert told(bench.until_end()[-1]) == OrderEnd("secret-after", 0)


def test_a_step_cant_report_an_end(bench: Bench) -> None:
    bench.start("forges")
    lines = bench.until_end()
    assert [told(line) for line in lines[1:]] == [
        None,
        None,
        None,
        OrderEnd("secret-forges", 0),
    ]


def test_a_signal_ends_the_step_and_the_sandbox(bench: Bench) -> None:
    bench.start("waits")
    assert bench.process.stdout is not None
    while b"cwd" not in bench._pending:
        bench._pending += os.read(bench.process.stdout.fileno(), 65_536)
    bench.process.terminate()
    assert not [line for line in bench.until_end() if isinstance(told(line), OrderEnd)]
    assert bench.process.wait(120) == contract.EXIT_TERMINATED


def test_it_ends_when_no_order_comes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, patience=0.2)
    bench.start("first")
    bench.until_end()
    assert bench.process.wait(120) == 0
    bench.process.communicate()


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_what_is_loaded_ahead_ends_with_the_step(seconds: float) -> None:
    step = subprocess.Popen(["sleep", str(seconds)])
    other = subprocess.Popen(["true"])
    began = time.monotonic()
    with pytest.raises(_StepEnded), _until_end_of(step.pid):
        time.sleep(600)
    assert time.monotonic() - began < 300
    # Later ends of processes disturb nothing.
    assert (step.wait(), other.wait(), subprocess.call(["true"])) == (0, 0, 0)


@pytest.mark.parametrize(
    ("result", "loaded", "again"),
    [({"a", "b"}, {"a", "b"}, True), (set(), set(), False), (RuntimeError(), set(), False)],
)
def test_steps_are_loaded_ahead_as_long_as_that_helps(
    result: Any, loaded: set[str], again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalrun.zenml_api.execution import steps

    def load_ahead(_run: str, _step: str) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "load_ahead", load_ahead)
    for name in ("ZENML_CONFIG_PATH", "ZENML_CUSTOM_SOURCE_ROOT"):
        monkeypatch.setenv(name, "")
    worker, step = Worker({}), subprocess.Popen(["sleep", "600"])
    worker._load_ahead({contract.RUN_ID: "run", contract.STEP: "a"}, step.pid)
    assert (set(worker._loaded), worker._loads) == (loaded, again)
    step.kill()
    step.wait()


def test_what_is_loaded_ahead_ends_although_that_is_ignored_once() -> None:
    step = subprocess.Popen(["sleep", "0.1"])
    began = time.monotonic()
    with pytest.raises(_StepEnded), _until_end_of(step.pid):
        # As Python does in the callbacks of an import.
        with contextlib.suppress(_StepEnded):
            time.sleep(600)
        time.sleep(600)
    assert time.monotonic() - began < 300
    step.wait()
