"""The stored lines of a run: complete and in order, whatever clocks and connections do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from modalrun.errors import ConnectionLostError
from modalrun.localmodal.launcher import StateDir
from modalrun.localmodal.server_info import ServerInfo
from modalrun.modal_api import log_history, sandbox_handles
from modalrun.modal_api.client import Connection
from modalrun.observe.log_source import LogSource
from modalrun.observe.logs import LogRequest, read
from modalrun.run.log_lines import LineFilter
from modalrun.run.tags import TAG_RUN
from modalrun.zenml_api.records import step_logs

from .support import Sdk, kill_server

STEP = """
import sys
for turn in range(3):
    for n in range(100):
        print(turn, n, file=sys.stderr if n % 2 else sys.stdout, flush=True)
    if turn < 2:
        input()
"""
LINES = [f"{turn} {n}" for turn in range(3) for n in range(100)]


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands here write no last line, and nothing comes late."""
    monkeypatch.setattr(log_history, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def source(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LogSource]:
    """A finished run of one sandbox, as ZenML and this machine know its times."""
    monkeypatch.setenv("MODALRUN_LOCAL_STATE", str(sdk.info.state_dir))

    def run(*clocks: float) -> LogSource:
        """Run it with the server's clock ahead by one of `clocks` in each of three turns."""
        began = time.time()
        script(sdk, clock=clocks[0] if clocks else 0)
        box = sdk.create(sys.executable, "-c", STEP, tags={TAG_RUN: "run"})
        out = iter(box.stdout)
        for turn in range(3):
            assert [next(out) for _ in range(50)] == [f"{turn} {n}\n" for n in range(0, 100, 2)]
            if turn < 2:
                script(sdk, clock=clocks[turn + 1] if clocks else 0)
                box.stdin.write("\n")
                box.stdin.drain()
        box.wait()
        return LogSource(
            "run", box.object_id, Connection("local"), running=False, since=began, until=time.time()
        )

    return run


def script(sdk: Sdk, **faults: Any) -> None:
    path = StateDir(sdk.info.state_dir).faults_file
    new = path.with_name("new-faults")
    new.write_text(json.dumps(faults))
    new.replace(path)


def texts(source: LogSource, **request: Any) -> list[str]:
    batches = read(source, LogRequest(LineFilter(driver=True), **request), print)
    return [line.text for batch in batches for line in batch]


HOUR = 3600.0


@pytest.mark.parametrize("clocks", [(HOUR, 0, HOUR), (0, HOUR, 0), (-HOUR, HOUR, -HOUR)])
def test_a_clock_that_jumps(source: Callable[..., LogSource], clocks: tuple[float, ...]) -> None:
    found = source(*clocks)
    # The order of the two streams is that of their arrival.
    both = texts(found)
    assert sorted(both) == sorted(LINES)
    for parity in (0, 1):
        stream = [text for text in both if int(text.split()[1]) % 2 == parity]
        assert stream == [text for text in LINES if int(text.split()[1]) % 2 == parity]
    assert len(texts(found, tail=7)) == 7


def test_an_outage_while_the_history_is_read(sdk: Sdk, source: Callable[..., LogSource]) -> None:
    found = source()
    # The SDK itself tries four times.
    rules = [
        {"rpc": "AppCountLogs", "action": "error", "times": 5},
        {"rpc": "AppFetchLogs", "action": "disconnect", "times": 2},
    ]
    script(sdk, rules=rules)
    assert sorted(texts(found)) == sorted(LINES)
    # The server was killed, and comes back at another address.
    kill_server(sdk.info)
    assert sorted(texts(found)) == sorted(LINES)


def test_an_outage_that_does_not_end(
    sdk: Sdk, source: Callable[..., LogSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = source()
    monkeypatch.setattr(sandbox_handles, "RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(step_logs, "stored_lines", lambda _: iter(()))
    script(sdk, rules=[{"rpc": "AppCountLogs", "action": "error", "times": None}])
    with pytest.raises(ConnectionLostError, match="Not all of the output can be read"):
        texts(found)


def test_the_times_of_the_next_server_do_not_begin_before(
    sdk: Sdk, start: Callable[..., ServerInfo], connect: Callable[[ServerInfo], Sdk]
) -> None:
    script(sdk, clock=HOUR)
    first = sdk.create("echo", "first")
    first.wait()
    script(sdk)
    kill_server(sdk.info)
    again = connect(start())
    second = again.create("echo", "second")
    second.wait()
    assert again.record(first).finished_at < again.record(second).created_at
