"""Live streams that survive a broken connection, and the history of the output."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import StateDir

from .support import Sdk

Backend = dict[str, Any]
LINES_UNTIL_TOLD = """
import itertools, select, sys
for number in itertools.count():
    print(number, flush=True)
    if select.select([sys.stdin], [], [], 0.002)[0]:
        break
"""


def script_faults(sdk: Sdk, *rules: dict[str, Any]) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(list(rules)))


def since() -> datetime:
    return datetime.now(timezone.utc) - timedelta(hours=1)


def test_resume_through_dropped_connections(sdk: Sdk, backend: Backend) -> None:
    sandbox = sdk.create("python", "-c", LINES_UNTIL_TOLD, **backend)
    rules = [
        {"rpc": rpc, "action": "disconnect", "messages": messages, "times": 2}
        for rpc in ("SandboxStdioReadV2", "SandboxGetLogs")
        for messages in (1, 7, 30)
    ]
    script_faults(sdk, *rules)
    log, told = StateDir(sdk.info.state_dir).server_log, False
    for number, line in enumerate(sandbox.stdout):
        assert line == f"{number}\n"
        if not told and log.read_text().count("a scripted fault") == 6:
            told = True
            sandbox.stdin.write("\n")
            sandbox.stdin.drain()
    assert told


def test_split_and_broken_characters(sdk: Sdk, backend: Backend) -> None:
    code = """
import sys, time
out = sys.stdout.buffer
for part in (b"a\\xc3", b"\\xa9\\xe2\\x82", b"\\xac\\xf0\\x9f\\x98", b"\\x80\\n"):
    out.write(part); out.flush(); sys.stdin.readline()
"""
    sandbox = sdk.create("python", "-c", code, **backend)
    for _ in range(4):
        sandbox.stdin.write("\n")
        sandbox.stdin.drain()
    assert sandbox.stdout.read() == "aé€😀\n"


def test_invalid_bytes_in_v1_and_history(sdk: Sdk) -> None:
    sandbox = sdk.create("printf", r"x\377y\303", gpu="T4")
    assert sandbox.stdout.read() == "x�y�"
    assert [entry.message for entry in sandbox.logs.tail()] == ["x�y�"]


def test_history(sdk: Sdk, backend: Backend) -> None:
    script = "echo one; sync; read x; echo two >&2; read x; echo three; read x; printf four"
    sandbox = sdk.create("sh", "-c", script, **backend)
    out, err = iter(sandbox.stdout), iter(sandbox.stderr)

    def go_on() -> None:
        sandbox.stdin.write("\n")
        sandbox.stdin.drain()

    assert next(out) == "one\n"
    go_on()
    assert next(err) == "two\n"
    go_on()
    assert next(out) == "three\n"
    go_on()
    sandbox.wait()
    entries = list(sandbox.logs.fetch(since=since()))
    assert [(entry.message, entry.source) for entry in entries] == [
        ("one\n", "stdout"),
        ("two\n", "stderr"),
        ("three\n", "stdout"),
        ("four", "stdout"),
    ]
    times = [entry.timestamp for entry in entries]
    assert times == sorted(times)
    assert since() < times[0] < datetime.now(timezone.utc)
    assert [e.message for e in sandbox.logs.fetch(since=since(), source="stderr")] == ["two\n"]
    assert [e.message for e in sandbox.logs.fetch(since=since(), search_text="r")] == [
        "three\n",
        "four",
    ]
    assert [e.message for e in sandbox.logs.tail(2)] == ["three\n", "four"]


def test_history_of_an_app(sdk: Sdk) -> None:
    app = sdk.app()
    for gpu in (None, "T4"):
        sdk.create("echo", f"with {gpu}", app=app, gpu=gpu).wait()
    sdk.create("echo", "elsewhere", app=sdk.app("other")).wait()
    assert [e.message for e in app.logs.fetch(since=since())] == ["with None\n", "with T4\n"]
    assert [e.message for e in app.logs.tail(1)] == ["with T4\n"]


def test_following_an_app(sdk: Sdk) -> None:
    app = sdk.app()
    script_faults(sdk, {"rpc": "AppGetLogs", "action": "disconnect", "messages": 1, "times": 3})
    first = sdk.create("sh", "-c", "echo 1; read x; echo 2", app=app)
    stream = iter(app.logs.stream())
    assert next(stream).message == "1\n"
    first.stdin.write("\n")
    first.stdin.drain()
    assert next(stream).message == "2\n"
    sdk.create("echo", "3", app=app, gpu="T4").wait()
    assert next(stream).message == "3\n"
    app.stop()
    assert list(stream) == []


def test_much_output(sdk: Sdk) -> None:
    for gpu in (None, "T4"):
        sandbox = sdk.create("seq", "1", "200000", gpu=gpu)
        assert sandbox.stdout.read() == "".join(f"{n}\n" for n in range(1, 200001))
        assert [e.message for e in sandbox.logs.tail(3)] == ["199998\n", "199999\n", "200000\n"]
        sandbox = sdk.create("python", "-c", "print('é' * 1_000_000)", gpu=gpu)
        assert sandbox.stdout.read() == "é" * 1_000_000 + "\n"
        assert "".join(e.message for e in sandbox.logs.tail()) == "é" * 1_000_000 + "\n"


def test_logs_survive_a_restart(sdk: Sdk, backend: Backend, connect: Any) -> None:
    sandbox = sdk.create("sh", "-c", "echo kept; echo too >&2", **backend)
    sandbox.wait()
    launcher.stop(sdk.info.state_dir)
    again = connect(launcher.ensure_running(sdk.info.state_dir)).sandbox(sandbox.object_id)
    assert again.returncode == 0
    assert (again.stdout.read(), again.stderr.read()) == ("kept\n", "too\n")
    assert sorted(e.message for e in again.logs.fetch(since=since())) == ["kept\n", "too\n"]
