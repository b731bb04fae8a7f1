"""Output that Modal's log store has only some time after the end of a sandbox."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from modalrun.localmodal.launcher import StateDir
from modalrun.modal_api import log_history
from modalrun.modal_api.client import Connection
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.observe.log_source import LogSource
from modalrun.observe.log_stream import LogStream
from modalrun.observe.logs import LogRequest, read
from modalrun.run.event_proof import END
from modalrun.run.log_lines import LineFilter, LogLine
from modalrun.run.tags import TAG_RUN

from .support import Sdk

LINES = [str(number) for number in range(10)]
PRINT = "for n in 0 1 2 3 4 5 6 7 8 9; do echo $n; sleep 0.02; done"
WITH_END = f"{PRINT}; printf '%s\\n' '{END}'; printf '%s\\n' '{END}' >&2"


@pytest.fixture(autouse=True)
def _local(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALRUN_LOCAL_STATE", str(sdk.info.state_dir))


def script(sdk: Sdk, **faults: Any) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(faults))


def run(sdk: Sdk, command: str) -> LogSource:
    """Run a sandbox to its end; return where its stored lines are."""
    began = time.time()
    box = sdk.create("sh", "-c", command, tags={TAG_RUN: "run"})
    box.wait(raise_on_termination=False)
    return LogSource(
        "run", box.object_id, Connection("local"), running=False, since=began, until=time.time()
    )


def stored(source: LogSource) -> list[str]:
    batches = read(source, LogRequest(LineFilter()), say=print)
    return [line.text for batch in batches for line in batch]


def live(source: LogSource) -> list[str]:
    assert source.connection is not None
    stream = LogStream(OutputStreams(source.connection, "run"), source.sandbox)
    return [item.text for batch in stream for item in batch if isinstance(item, LogLine)]


@pytest.mark.parametrize("reader", [stored, live])
@pytest.mark.parametrize("command", [WITH_END, pytest.param(PRINT, marks=pytest.mark.exhaustive)])
def test_a_history_that_lags_misses_no_line(
    sdk: Sdk, reader: Any, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"rpc": "SandboxStdioReadV2", "action": "error", "status": "NOT_FOUND", "times": None}
    # For longer than a sandbox that was killed is waited for.
    monkeypatch.setattr(log_history, "QUIET_SECONDS", 0.5)
    script(sdk, lags={"history": 1.5}, rules=[gone])
    assert reader(run(sdk, command)) == LINES


def test_a_gap_is_waited_for(sdk: Sdk) -> None:
    # The worker still has "7\n8\n9\n".
    script(sdk, lags={"history": 1}, retained=6)
    note, *lines = live(run(sdk, PRINT))
    assert note.startswith("[modalrun: 14 bytes of stdout are no longer in Modal's live stream")
    assert lines == LINES


def test_only_what_may_come_is_waited_for(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    async def quiet_seconds(*parts: Any) -> float:
        waits.append(await real(*parts))
        return 0.0

    real = log_history._quiet_seconds
    monkeypatch.setattr(log_history, "_quiet_seconds", quiet_seconds)
    assert stored(run(sdk, WITH_END)) == LINES
    assert waits == []
    ended = run(sdk, PRINT)
    assert stored(ended) == LINES
    killed = run(sdk, f"{PRINT}; kill -9 $$")
    assert stored(killed) == LINES
    assert waits == [log_history.SETTLE_SECONDS, log_history.QUIET_SECONDS]
    assert stored(replace(ended, until=time.time() - 100)) == LINES
    assert len(waits) == 2
