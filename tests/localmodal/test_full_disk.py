"""The disk of the state folder is full: sandboxes go on, nothing is lost, errors name the disk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.exception import (
    ConflictError,
    Error,
    ResourceExhaustedError,
    SandboxFilesystemError,
)
from modal_proto.api_pb2 import GenericResult

from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import StateDir

from .support import PATIENCE, Sdk


def script(sdk: Sdk, **faults: Any) -> None:
    path = StateDir(sdk.info.state_dir).faults_file
    new = path.with_name("new-faults")
    new.write_text(json.dumps(faults))
    new.replace(path)


def test_a_sandbox_runs_on_and_its_lines_are_stored_later(
    sdk: Sdk, backend: dict[str, Any]
) -> None:
    code = "read x; for n in $(seq 1000); do echo line $n; done; read x; printf end; exit 3"
    sandbox = sdk.create("sh", "-c", f"echo ready; {code}", **backend)
    lines = iter(sandbox.stdout)
    assert next(lines) == "ready\n"
    queue = modal.Queue.from_name("q", create_if_missing=True, client=sdk.client).hydrate()
    script(sdk, disk_full=True)

    # Nothing new begins, with an error that names the disk and what to do.
    wanted = f"{sdk.info.state_dir} is full. Free some space there"
    with pytest.raises(ResourceExhaustedError, match=wanted):
        sdk.create("true", **backend)
    with pytest.raises(ResourceExhaustedError, match=wanted):
        modal.Secret.objects.create("name", {"KEY": "value"}, client=sdk.client)
    with pytest.raises(ResourceExhaustedError, match=wanted):
        sandbox.set_tags({"a": "b"})
    with pytest.raises(ResourceExhaustedError, match=wanted):
        sandbox.exec("true")
    # Here the SDK tells no other errors, or tries again without end.
    for call in (sandbox.filesystem.read_text, sandbox.filesystem.list_files):
        with pytest.raises(SandboxFilesystemError, match=wanted):
            call("/etc/hosts")
    with pytest.raises(SandboxFilesystemError, match=wanted):
        sandbox.filesystem.write_text("x" * 1_000_000, "/tmp/x")
    with pytest.raises(ConflictError, match=wanted):
        queue.put(1, timeout=PATIENCE)

    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    assert [next(lines) for _ in range(1000)] == [f"line {n + 1}\n" for n in range(1000)]
    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    assert list(lines) == ["end"]
    sandbox.wait()
    assert sandbox.returncode == 3
    # Another client gets the end and the lines, although they are in memory only.
    assert sdk.sandbox(sandbox.object_id).poll() == 3
    assert len(list(sdk.sandbox(sandbox.object_id).logs.tail(2000))) == 1002
    assert sdk.record(sandbox).status == 0

    script(sdk)
    assert sdk.create("echo", "again", **backend).stdout.read() == "again\n"
    deadline = time.monotonic() + PATIENCE
    while sdk.record(sandbox).status == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    record = sdk.record(sandbox)
    assert record.tags == {}
    assert (record.status, record.exitcode) == (GenericResult.GENERIC_STATUS_FAILURE, 3)
    stored = StateDir(sdk.info.state_dir).logs(sandbox.object_id) / "stdout"
    assert stored.read_text().endswith("line 1000\nend")


def test_a_log_has_a_limit(
    state: Path, connect: Any, monkeypatch: pytest.MonkeyPatch, backend: dict[str, Any]
) -> None:
    monkeypatch.setenv("MODALRUN_LOCAL_LOG_LIMIT", "0.5")
    sdk = connect(launcher.ensure_running(state, idle_timeout=120))
    code = "echo begin; yes $(printf %099d 0) | head -c 2000000; echo; echo end; echo error >&2"
    sandbox = sdk.create("sh", "-c", code, **backend)
    lines = list(sandbox.stdout)
    assert (lines[0], lines[-1]) == ("begin\n", "end\n")
    assert sandbox.stderr.read() == "error\n"
    assert (
        len([line for line in lines if "has reached MODALRUN_LOCAL_LOG_LIMIT, 0.5 MiB" in line])
        == 1
    )
    whole = "0" * 99 + "\n"
    # Only the line at which the limit is reached is cut.
    assert len([line for line in lines[1:-1] if line != whole]) <= 4
    log = StateDir(state).logs(sandbox.object_id)
    assert 500_000 < sum(path.stat().st_size for path in log.iterdir()) < 700_000
    assert "end\n" in [entry.message for entry in sandbox.logs.tail(5)]


def test_much_output_waits_for_room(sdk: Sdk) -> None:
    """A sandbox that prints without end does not fill the memory of the server."""
    code = "echo ready; read x; yes $(printf %08191d 0) | head -c 40960000; echo done >&2"
    sandbox = sdk.create("sh", "-c", code)
    lines = iter(sandbox.stdout)
    assert next(lines) == "ready\n"
    script(sdk, disk_full=True)
    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    # 16 MB are held in memory.
    for _ in range(2_000):
        next(lines)
    assert sandbox.poll() is None
    script(sdk)
    sandbox.wait()
    assert sandbox.stderr.read() == "done\n"
    stored = StateDir(sdk.info.state_dir).logs(sandbox.object_id) / "stdout"
    assert stored.stat().st_size == 40_960_006


def test_a_sandbox_without_a_log_is_not_recorded(sdk: Sdk) -> None:
    """The SDK repeats such a call. It must not get a sandbox that never runs."""
    app = sdk.app()
    logs = StateDir(sdk.info.state_dir).logs("")
    logs.rename(logs.with_name("aside"))
    logs.touch()
    with pytest.raises(Error, match="failed in the local Modal server"):
        sdk.create("true", app=app)
    logs.unlink()
    logs.with_name("aside").rename(logs)
    # It has the traceback of that.
    StateDir(sdk.info.state_dir).server_log.write_text("")
    listed = modal.Sandbox.list(app_id=app.app_id, client=sdk.client)
    assert list(listed) == []
    assert sdk.create("echo", "a", app=app).stdout.read() == "a\n"
