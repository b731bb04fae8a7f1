"""Every byte of every stream once, whatever happens to the connections."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import defaultdict
from typing import Any

import pytest

from modalrun.driver.events import StepEvent
from modalrun.errors import NotFoundError
from modalrun.loglines import Item, LogLine
from modalrun.logs import Follower
from modalrun.modal_api import Connection, RunningSandbox, SandboxEnd
from modalrun.modal_api.pieces import Piece
from modalrun.modal_api.streams import Streams

from .proxy import CuttingProxy
from .support import Sdk

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


def connection(sdk: Sdk, url: str | None, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Our own connection to the server, or to what stands before it."""
    monkeypatch.setenv("MODAL_SERVER_URL", url or sdk.info.url)
    return Connection("modal", credentials=(sdk.info.token_id, sdk.info.token_secret))


def collected(streams: Streams) -> dict[tuple[str, str], str]:
    texts: dict[tuple[str, str], str] = defaultdict(str)
    for batch in streams:
        for item in batch:
            if isinstance(item, Piece):
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
    streams = Streams(connection(sdk, proxy.url, monkeypatch))
    for box in boxes:
        streams.add(box.object_id)
    texts = collected(streams)
    proxy.close()
    assert proxy.cuts > 5
    for n, box in enumerate(boxes):
        for source, text in expected(f"b{n}", 2000).items():
            assert texts[box.object_id, source] == text


DRIVER = """
import json, sys
def event(**values):
    sys.stdout.write("\\x1e" + json.dumps({"modalrun": "step", "at": 1.0, **values}) + "\\n")
    sys.stdout.flush()
for text in sys.stdin:
    step, sandbox = text.split()
    event(step=step, state="running", sandbox=sandbox, attempt=2)
    print("talk", file=sys.stderr, flush=True)
"""


def test_step_sandboxes_join_as_the_driver_names_them(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sdk.create(sys.executable, "-c", DRIVER)
    follower = Follower(connection(sdk, None, monkeypatch), run.object_id)
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
    follower = Follower(connection(sdk, None, monkeypatch), box.object_id)
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
    follower = Follower(Connection("local"), box.object_id)
    items = iter(follower)
    assert [item.text for item in next(items) if isinstance(item, LogLine)] == ["one"]
    os.kill(sdk.info.pid, signal.SIGKILL)
    # Its sandboxes end with it; what they had written is all there is.
    assert [item for batch in items for item in batch] == []
    assert follower.errors == []


def test_watch_to_the_end(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    box = sdk.create("sh", "-c", "printf out; printf err >&2; exit 3")
    running = RunningSandbox(connection(sdk, None, monkeypatch), box, app_id="ap-1")
    seen = {"stdout": "", "stderr": ""}

    def on_output(source: str, text: str) -> None:
        seen[source] += text

    assert running.watch(on_output) == SandboxEnd("failed", 3)
    assert seen == {"stdout": "out", "stderr": "err"}


def test_closing_while_nothing_comes(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    box = sdk.create("sh", "-c", "echo here; read x")
    follower = Follower(connection(sdk, None, monkeypatch), box.object_id)
    items = iter(follower)
    assert next(items)
    threading.Timer(0.1, follower.close).start()
    assert list(items) == []


def test_a_sandbox_that_nobody_knows(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower(connection(sdk, None, monkeypatch), "sb-0123456789012345678901")
    (line, *_) = [item for batch in follower for item in batch]
    assert isinstance(line, LogLine) and line.source == "system"
    assert {type(error) for error in follower.errors} == {NotFoundError}
