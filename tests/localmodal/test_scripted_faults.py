"""Ends of sandboxes and answers that lag, as a fault script asks for them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import modal
import pytest
from modal.exception import ConflictError, InvalidError, NotFoundError
from modal_proto import api_pb2 as api

from modalrun.localmodal import launcher
from modalrun.localmodal.storage.paths import StateDir

from .support import PATIENCE, Sdk

HANDLER = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("interrupted", flush=True), {leave}))
print("ready", flush=True)
time.sleep(1000)
"""


def script(sdk: Sdk, **keys: Any) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(keys))


def status_of(sdk: Sdk, sandbox: modal.Sandbox) -> str:
    status = sdk.record(sandbox).status
    name: str = api.GenericResult.GenericStatus.Name(status)  # type: ignore[arg-type]
    return name.removeprefix("GENERIC_STATUS_")


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        ("failure-0", "FAILURE", 0),
        ("out-of-memory", "KERNEL_OOM_KILL", 137),
        ("evicted", "MEMORY_MANAGER_EVICTION", 137),
        ("thrashing", "MEMORY_THRASHING_EVICTION", 137),
    ],
)
def test_an_end_by_kill_and_an_end_told_afterwards(
    sdk: Sdk, end: str, status: str, code: int
) -> None:
    killed, told = {"end": end, "after": 0}, {"end": end}
    script(sdk, sandboxes=[killed, told])
    for command in ("echo started; sleep 1000", "echo done"):
        sandbox = sdk.create("bash", "-c", command)
        sandbox.wait()
        assert (status_of(sdk, sandbox), sandbox.returncode) == (status, code)
    assert sandbox.stdout.read() == "done\n"
    unharmed = sdk.create("true")
    unharmed.wait()
    assert status_of(sdk, unharmed) == "SUCCESS"


def test_a_role_is_chosen_by_its_tag_and_some_sandboxes_are_spared(sdk: Sdk) -> None:
    script(sdk, sandboxes=[{"role": "step", "skip": 1, "times": None, "end": "failure-0"}])
    statuses = []
    for role in ("step", "run", "step", "step"):
        sandbox = sdk.create("true", tags={"modalrun-role": role})
        sandbox.wait()
        statuses.append(status_of(sdk, sandbox))
    assert statuses == ["SUCCESS", "SUCCESS", "FAILURE", "FAILURE"]


@pytest.mark.parametrize(
    ("leave", "status", "code"),
    [("sys.exit(7)", "FAILURE", 7), ("None", "INTERNAL_FAILURE", 137)],
)
def test_preemption_interrupts_first_and_kills_later(
    sdk: Sdk, leave: str, status: str, code: int
) -> None:
    # A process that starts may not have its handler yet.
    script(sdk, sandboxes=[{"end": "preempted", "after": 2, "grace": 0.3}])
    sandbox = sdk.create("python3", "-c", HANDLER.format(leave=leave))
    sandbox.wait()
    assert sandbox.stdout.read() == "ready\ninterrupted\n"
    assert (status_of(sdk, sandbox), sandbox.returncode) == (status, code)


def test_a_sandbox_that_is_never_scheduled(sdk: Sdk, backend: dict[str, Any]) -> None:
    script(sdk, sandboxes=[{"end": "not-scheduled"}])
    if backend:
        with pytest.raises(ConflictError, match="loading container failed"):
            sdk.create("echo", "never", **backend)
    else:
        sandbox = sdk.create("echo", "never")
        sandbox.wait()
        assert (status_of(sdk, sandbox), sandbox.stdout.read()) == ("INIT_FAILURE", "")
    sandbox = sdk.create("echo", "well", **backend)
    assert sandbox.stdout.read() == "well\n"


def test_a_gpu_sandbox_waits_for_its_place(sdk: Sdk) -> None:
    script(sdk, scheduling={"H100": None, "T4": 2.5})
    began = time.monotonic()
    # The wait is no part of the timeout.
    waited = sdk.create("bash", "-c", "sleep 1; echo t4", gpu="T4", timeout=3)
    assert time.monotonic() - began >= 2.5
    assert waited.stdout.read() == "t4\n"
    assert sdk.create("echo", "a100", gpu="A100").stdout.read() == "a100\n"

    app = sdk.app()

    async def wait_in_vain() -> None:
        create = modal.Sandbox.create.aio(
            "true", app=app, gpu="H100", name="waiting", client=sdk.client
        )
        creation = asyncio.create_task(create)
        await asyncio.wait({creation}, timeout=1.0)
        assert not creation.done()
        # The SDK terminates the sandbox that nobody will get.
        creation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creation

    asyncio.run(wait_in_vain())
    with pytest.raises(NotFoundError):
        modal.Sandbox.from_name("tests", "waiting", client=sdk.client)


def test_a_lagging_list_shows_a_moment_ago(sdk: Sdk) -> None:
    app = sdk.app()

    def listed() -> list[str]:
        found = modal.Sandbox.list(app_id=app.app_id, client=sdk.client)
        return [sandbox.object_id for sandbox in found]

    old = sdk.create("sleep", "1000", app=app)
    script(sdk, lags={"list": 500}, clock=1000)
    new = sdk.create("sleep", "1000", app=app, name="new")
    assert listed() == [old.object_id]
    found = modal.Sandbox.from_name("tests", "new", client=sdk.client)
    assert found.object_id == new.object_id
    old.terminate()
    old.wait(raise_on_termination=False)
    (stale,) = modal.Sandbox.list(app_id=app.app_id, client=sdk.client)
    assert (stale.object_id, stale.returncode) == (old.object_id, None)
    script(sdk, clock=1000)
    assert listed() == [new.object_id]


def test_a_history_that_lags(sdk: Sdk) -> None:
    sandbox = sdk.create("echo", "line")
    sandbox.wait()

    def history() -> list[str]:
        return [entry.message for entry in sandbox.logs.tail(10)]

    script(sdk, lags={"history": 1000})
    assert history() == []
    assert sandbox.stdout.read() == "line\n"
    script(sdk, lags={"history": 1})
    deadline = time.monotonic() + PATIENCE
    while not history():
        assert time.monotonic() < deadline
    assert history() == ["line\n"]


def test_a_script_with_a_mistake_changes_nothing(sdk: Sdk) -> None:
    app = sdk.app()
    script(sdk, sandboxes=[{"end": "no-such-end"}])
    # Who has begun goes on.
    sandbox = sdk.create("true", app=app)
    sandbox.wait()
    assert status_of(sdk, sandbox) == "SUCCESS"
    told = "faults.json, is wrong: sandboxes[0]: there is no end 'no-such-end'"
    assert told in StateDir(sdk.info.state_dir).server_log.read_text()
    # Nobody takes it for a fault that was survived.
    status = launcher.status(sdk.info.state_dir)
    assert status is not None
    assert told in status["faults"]
    with pytest.raises(InvalidError, match="no-such-end"):
        modal.Client.from_credentials(sdk.info.token_id, sdk.info.token_secret).hello()
    with pytest.raises(InvalidError, match="no-such-end"):
        sdk.app()
