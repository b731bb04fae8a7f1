"""Every byte of every stream once, whatever happens to the connections."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import modal
import pytest

from modalrun.errors import NotFoundError
from modalrun.localmodal.storage.paths import StateDir
from modalrun.modal_api import log_history
from modalrun.modal_api.client import Connection
from modalrun.modal_api.log_buffer import OutputChunk
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.observe.log_source import LogSource
from modalrun.observe.log_stream import LogStream
from modalrun.observe.logs import LogRequest, read
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import Item, LineFilter, LogLine
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.tags import TAG_RUN

from .proxy import CuttingProxy
from .support import Sdk, kill_server

LINES = """
import sys, time
name, count = sys.argv[1], int(sys.argv[2])
for n in range(count):
    stream = sys.stderr if n % 5 == 4 else sys.stdout
    stream.write(f"{name} line {n} \\u20ac {'x' * (n % 40)}\\n")
    stream.flush()
    if n % 50 == 0:
        time.sleep(0.04)
"""


RUN = "run"
"""The id of the run that the sandboxes belong to."""


@dataclass
class RunSdk(Sdk):
    """Create sandboxes of the run."""

    def create(self, *command: str, app: modal.App | None = None, **options: Any) -> modal.Sandbox:
        return super().create(*command, app=app, tags={TAG_RUN: RUN}, **options)


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands here write no last line, and nothing comes late."""
    monkeypatch.setattr(log_history, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def sdk(sdk: Sdk) -> Sdk:
    """A running server and the SDK pointed at it, for sandboxes of a run."""
    return RunSdk(sdk.info, sdk.client)


def connection(sdk: Sdk, url: str | None, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Connect to the server or to its proxy."""
    monkeypatch.setenv("MODAL_SERVER_URL", url or sdk.info.url)
    return Connection("modal", credentials=(sdk.info.token_id, sdk.info.token_secret))


def collected(streams: OutputStreams) -> dict[tuple[str, str], str]:
    texts: dict[tuple[str, str], str] = defaultdict(str)
    for batch in streams:
        for item in batch:
            if isinstance(item, OutputChunk):
                assert not item.missing
                texts[item.sandbox, item.source] += item.text
            else:
                assert item.error is None, item.error
    return texts


def expected(name: str, count: int) -> dict[str, str]:
    lines: dict[str, str] = {"stdout": "", "stderr": ""}
    for n in range(count):
        source = "stderr" if n % 5 == 4 else "stdout"
        lines[source] += f"{name} line {n} € {'x' * (n % 40)}\n"
    return lines


def test_connections_cut_at_random(
    sdk: Sdk, backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = CuttingProxy(
        int(sdk.info.url.rpartition(":")[2]), mean_bytes=400_000, mean_seconds=0.1, seed=7
    )
    boxes = [sdk.create(sys.executable, "-c", LINES, f"b{n}", "2000", **backend) for n in range(5)]
    streams = OutputStreams(connection(sdk, proxy.url, monkeypatch), RUN)
    proxy.begin()
    for box in boxes:
        streams.add(box.object_id)
    texts = collected(streams)
    proxy.close()
    assert proxy.cuts > 5
    for n, box in enumerate(boxes):
        for source, text in expected(f"b{n}", 2000).items():
            assert texts[box.object_id, source] == text


DRIVER = """
import json, sys, time
def event(**values):
    values = {"modalrun": "step", "at": time.time(), **values}
    sys.stdout.write("\\x1e" + json.dumps(values) + "\\n")
    sys.stdout.flush()
for text in sys.stdin:
    step, sandbox = text.split()
    event(step=step, state="running", sandbox=sandbox, attempt=2)
    print("talk", file=sys.stderr, flush=True)
"""


def test_what_the_next_driver_tells_is_read_on_without_what_was_read_before(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (sdk.create(sys.executable, "-c", DRIVER) for _ in range(2))
    old, new = (sdk.create("sh", "-c", f"echo of {name}") for name in ("load", "train"))
    resumed = threading.Event()

    def successor(gone: str) -> str | None:
        # The second driver ends by itself and has no replacement.
        if gone != first.object_id:
            return None
        assert resumed.wait(60)
        return second.object_id

    follower = LogStream(
        OutputStreams(connection(sdk, None, monkeypatch), RUN), first.object_id, successor=successor
    )
    seen: list[Item] = []
    items = iter(follower)
    first.stdin.write(f"load {old.object_id}\n")
    first.stdin.drain()
    while not any(isinstance(item, LogLine) and item.step == "load" for item in seen):
        seen += next(items)
    first.terminate(wait=True)
    # The replacement driver reports the finished steps again.
    for name, box in (("load", old), ("train", new)):
        second.stdin.write(f"{name} {box.object_id}\n")
    second.stdin.write_eof()
    second.stdin.drain()
    resumed.set()
    seen += [item for batch in items for item in batch]

    assert not follower.errors
    assert sorted(i.text for i in seen if isinstance(i, LogLine) and i.step) == [
        "of load",
        "of train",
    ]
    told = [item.step for item in seen if isinstance(item, StepEvent)]
    assert told == ["load", "load", "train"]


def test_step_sandboxes_join_as_the_driver_names_them(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sdk.create(sys.executable, "-c", DRIVER)
    follower = LogStream(OutputStreams(connection(sdk, None, monkeypatch), RUN), run.object_id)
    items = iter(follower)
    seen: list[Item] = []
    for step, gpu in (("load", None), ("train", "T4")):
        # The sandbox has ended before anybody hears of it.
        box = sdk.create(
            "sh", "-c", f"echo {step} 1; echo {step} 2 >&2; printf '{step} 3'", gpu=gpu
        )
        box.wait()
        run.stdin.write(f"{step} {box.object_id}\n")
        run.stdin.drain()
        while sum(isinstance(item, LogLine) and item.step == step for item in seen) < 3:
            seen += next(items)
    run.stdin.write_eof()
    run.stdin.drain()
    seen += [item for batch in items for item in batch]
    assert follower.errors == []
    lines = sorted((str(i.step), i.source, i.text) for i in seen if isinstance(i, LogLine))
    assert lines == [("None", "stderr", "talk")] * 2 + [
        (step, source, f"{step} {n}")
        for step in ("load", "train")
        for source, n in (("stderr", 2), ("stdout", 1), ("stdout", 3))
    ]
    assert [i.step for i in seen if isinstance(i, StepEvent)] == ["load", "train"]
    assert {i.attempt for i in seen if isinstance(i, LogLine) and i.step} == {2}


ANYTHING = r"""
import sys
out = sys.stdout.buffer
out.write(b"nul \0 and \xff\xc3 broken\r10%\r20%\n" + b"x" * 10_000_000 + b"\n")
for n in range(200_000):
    out.write(b"%d\n" % n)
out.write(b"no line feed \xe2\x82")
"""


def test_any_bytes(sdk: Sdk, backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    box = sdk.create(sys.executable, "-c", ANYTHING, **backend)
    follower = LogStream(OutputStreams(connection(sdk, None, monkeypatch), RUN), box.object_id)
    first, *lines = [i.text for batch in follower for i in batch if isinstance(i, LogLine)]
    assert first == "nul \0 and \ufffd\ufffd broken\r10%\r20%"
    start = lines.index("0")
    assert "".join(lines[:start]) == "x" * 10_000_000
    assert lines[start:-1] == [str(n) for n in range(200_000)]
    assert lines[-1] == "no line feed \ufffd"


@pytest.mark.parametrize(
    # The SDK itself tries for 10 s to reach the worker of a V2 sandbox.
    "gpu",
    ["T4", pytest.param(None, marks=pytest.mark.exhaustive)],
)
def test_a_server_that_dies_and_comes_back(
    sdk: Sdk, gpu: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODALRUN_LOCAL_STATE", str(sdk.info.state_dir))
    box = sdk.create("sh", "-c", "echo one; read x; echo two", gpu=gpu)
    follower = LogStream(OutputStreams(Connection("local"), RUN), box.object_id)
    items = iter(follower)
    assert [item.text for item in next(items) if isinstance(item, LogLine)] == ["one"]
    kill_server(sdk.info)
    # Its sandboxes end with it, and so does their output.
    assert [item for batch in items for item in batch] == []
    assert follower.errors == []


def test_watch_to_the_end(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    box = sdk.create("sh", "-c", "printf out; printf err >&2; exit 3")
    running = RunningSandbox(connection(sdk, None, monkeypatch), box, RUN, app_id="ap-1")
    seen = {"stdout": "", "stderr": ""}

    def on_output(source: str, text: str) -> None:
        seen[source] += text

    assert running.watch(on_output) == read_exit(3)
    assert seen == {"stdout": "out", "stderr": "err"}


def test_a_wait_is_cancelled_while_the_sandbox_runs(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = sdk.create("sh", "-c", "read x")
    running = RunningSandbox(connection(sdk, None, monkeypatch), box, RUN, app_id="ap-1")
    threading.Timer(0.5, running.cancel_wait).start()
    with pytest.raises(asyncio.CancelledError):
        running.wait()
    assert box.poll() is None


def test_closing_while_nothing_comes(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    box = sdk.create("sh", "-c", "echo here; read x")
    follower = LogStream(OutputStreams(connection(sdk, None, monkeypatch), RUN), box.object_id)
    items = iter(follower)
    assert next(items)
    threading.Timer(0.1, follower.close).start()
    assert list(items) == []


def test_a_sandbox_that_nobody_knows(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = LogStream(
        OutputStreams(connection(sdk, None, monkeypatch), RUN), "sb-0123456789012345678901"
    )
    (line, *_) = [item for batch in follower for item in batch]
    assert isinstance(line, LogLine) and line.source == "system"
    assert {type(error) for error in follower.errors} == {NotFoundError}


def lines_of(follower: LogStream) -> list[str]:
    return [i.text for batch in follower for i in batch if isinstance(i, LogLine)]


def script(sdk: Sdk, **faults: Any) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(faults))


def test_what_the_worker_no_longer_has_comes_from_the_history(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = sdk.create("sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.01; done")
    box.wait()
    # The worker still has "6\nline 7\nline 8\nline 9\n".
    script(sdk, retained=23)
    note, *lines = lines_of(
        LogStream(OutputStreams(connection(sdk, None, monkeypatch), RUN), box.object_id)
    )
    assert note.startswith("[modalrun: 40 bytes of stdout are no longer in Modal's live stream")
    assert lines == [f"line {n}" for n in range(1, 10)]


@pytest.mark.parametrize("status", ["NOT_FOUND", "FAILED_PRECONDITION"])
def test_a_worker_that_is_gone(sdk: Sdk, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    box = sdk.create("sh", "-c", "echo one; read x; echo two; printf three")
    follower = LogStream(OutputStreams(connection(sdk, None, monkeypatch), RUN), box.object_id)
    items = iter(follower)
    assert [i.text for i in next(items) if isinstance(i, LogLine)] == ["one"]
    rule = {"rpc": "SandboxStdioReadV2", "times": None}
    script(sdk, rules=[{**rule, "action": "error", "status": status}])
    box.stdin.write("\n")
    box.stdin.drain()
    assert [i.text for b in items for i in b if isinstance(i, LogLine)] == ["two", "three"]
    # And for a new reader.
    assert lines_of(
        LogStream(OutputStreams(connection(sdk, None, monkeypatch), RUN), box.object_id)
    ) == [
        "one",
        "two",
        "three",
    ]


def test_the_history_of_a_run_in_order_of_time(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sdk.create(sys.executable, "-c", DRIVER)
    code = "import sys\nfor n in range(30_000): print(sys.argv[1], n)"
    names = ("load", "train")
    for name, gpu in zip(names, (None, "T4"), strict=True):
        box = sdk.create(sys.executable, "-c", code, name, gpu=gpu)
        run.stdin.write(f"{name} {box.object_id}\n")
        run.stdin.drain()
        box.wait()
    run.stdin.write_eof()
    run.stdin.drain()
    run.wait()
    place = LogSource(
        RUN,
        run.object_id,
        connection(sdk, None, monkeypatch),
        running=False,
        since=time.time() - 60,
    )
    lines = [line for batch in read(place, LogRequest(LineFilter()), print) for line in batch]
    for name in names:
        assert [i.text for i in lines if i.step == name] == [f"{name} {n}" for n in range(30_000)]
    times = [line.time for line in lines if line.time is not None]
    assert len(times) == len(lines) == 60_000 and times == sorted(times)
    newest = read(place, LogRequest(LineFilter(steps=("tr*",)), tail=2), print)
    assert [line.text for batch in newest for line in batch] == ["train 29998", "train 29999"]
    driver = read(place, LogRequest(LineFilter(driver=True)), print)
    assert [line.text for batch in driver for line in batch] == ["talk"] * 2
