"""Row 8: user code of a dynamic run has no Modal token, and gets its own isolated steps alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.driver import sandbox_broker, sandbox_client
from modalrun.driver.graph.isolated_steps import IsolatedSteps
from modalrun.driver.processes.messages import MessageSocket
from modalrun.errors import RunFailedError, UsageError
from modalrun.run import contract
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.step_request import StepRequest
from modalrun.run.tags import TAG_ROLE
from tests.unit.driver.test_isolated_steps import DONE, Boxes

RUN_SANDBOX = SandboxSpec(
    ("python",),
    "im-1",
    Resources(),
    300,
    env={"PYTHONPATH": "/opt/modalrun/modalrun.zip"},
    secrets=("known",),
    tags={TAG_ROLE: "run"},
)
MANIFEST = RunManifest(
    "run",
    RunPlan("local", "p", RunSettings(app_name="app", mode="per_step"), RUN_SANDBOX),
    "",
)
RECORD = UUID(int=7)


def request(**changes: Any) -> StepRequest:
    values: dict[str, Any] = {"name": "a", "step_run": RECORD, "run_id": RECORD, "attempt": 1}
    return StepRequest(**{**values, "settings": {}, "docker": "", **changes})


@pytest.fixture
def boxes() -> Boxes:
    return Boxes()


@pytest.fixture
def broker_end(boxes: Boxes) -> Iterator[socket.socket]:
    """The end of user code of the socket to a broker that serves."""
    ours, theirs = socket.socketpair()
    isolated = IsolatedSteps(MANIFEST, cast("Any", boxes))
    broker = sandbox_broker.Broker(MessageSocket(ours), MANIFEST, isolated)
    serving = threading.Thread(target=broker.serve, daemon=True)
    serving.start()
    yield theirs
    theirs.close()
    serving.join(10)
    assert not serving.is_alive()
    ours.close()


@pytest.fixture
def client(
    broker_end: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[sandbox_client.SandboxClient]:
    monkeypatch.setenv(contract.BROKER, str(os.dup(broker_end.fileno())))
    left = threading.Event()
    monkeypatch.setattr(sandbox_client, "leave", lambda code: left.set())
    yield sandbox_client.SandboxClient()
    broker_end.shutdown(socket.SHUT_RDWR)
    assert left.wait(10), "without a broker the run can't go on"


def test_a_step_runs_to_its_end(client: sandbox_client.SandboxClient, boxes: Boxes) -> None:
    ended = threading.Event()
    client.on_end = ended.set
    with pytest.raises(KeyError):
        client.exit_of(str(RECORD))
    client.submit(request(settings={"orchestrator": {"gpu": "T4"}}))
    assert client.exit_of(str(RECORD)) is None
    (box,) = boxes.created
    box.end(DONE)
    assert client.exit_of(str(RECORD), wait=True) == DONE
    assert ended.wait(10)
    client.close_run(str(RECORD))
    with pytest.raises(RunFailedError, match="being ended"):
        client.submit(request(step_run=UUID(int=8)))
    client.terminate_all()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"settings": {"orchestrator": {"secrets": ["others"]}}}, "asks for the Modal secret"),
        ({"settings": {"orchestrator": {"volumes": {"v": "/v"}}}}, "asks for the Modal volume"),
        ({"docker": "other"}, "Docker settings of its own"),
    ],
)
def test_what_the_run_was_not_submitted_with_is_refused(
    client: sandbox_client.SandboxClient, boxes: Boxes, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(UsageError, match=error):
        client.submit(request(**changes))
    assert boxes.created == []


def call(method: str, **arguments: Any) -> dict[str, Any]:
    return {"number": 1, "method": method, "arguments": arguments}


PLAIN = {
    "name": "a",
    "step_run": str(RECORD),
    "run_id": str(RECORD),
    "attempt": 1,
    "settings": {},
    "docker": "",
}


@pytest.mark.parametrize(
    "asked",
    [
        call("create", spec={}),
        call("__class__"),
        call("_plan", step=PLAIN),
        call("submit"),
        call("submit", step="a"),
        call("submit", step={**PLAIN, "sandbox": {"command": ["sh"]}}),
        call("submit", step={**PLAIN, "attempt": "x"}),
        call("submit", step={**PLAIN, "name": "x" * 256}),
        call("submit", step={**PLAIN, "run_id": "../x"}),
        call("exit_of", step_run=["x"], wait=False),
    ],
)
def test_other_requests_are_refused(
    broker_end: socket.socket, boxes: Boxes, asked: dict[str, Any]
) -> None:
    end = MessageSocket(broker_end)
    assert json.loads(end.receive())["number"] == 0
    broker_end.sendall(json.dumps(asked).encode() + b"\n")
    assert json.loads(end.receive())["error"]
    assert boxes.created == []


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200) | st.recursive(st.none(), st.lists).map(lambda v: repr(v).encode()))
def test_noise_ends_the_broker_and_nothing_else(noise: bytes) -> None:
    ours, theirs = socket.socketpair()
    serve: Callable[[], None] = sandbox_broker.Broker(
        MessageSocket(ours), MANIFEST, cast("Any", type("Fake", (), dict.fromkeys(NAMES))())
    ).serve
    theirs.sendall(noise + b"\n")
    theirs.shutdown(socket.SHUT_WR)
    serve()
    ours.close()
    theirs.close()


NAMES = ("exit_of", "stop", "close_run", "terminate_all")

SUPERVISOR = """
import os, sys
from modalrun.driver import supervisor
from modalrun.run import contract
contract.DYNAMIC_MODULE, contract.BROKER_MODULE = "child", "broker"
os._exit(supervisor.main())
"""

BROKER = """
import os, socket, sys
from modalrun.driver.processes import privileges
privileges.hide_process()
privileges.hide_variables(["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"])
supervisor = socket.socket(fileno=int(sys.argv[1]))
while True:
    asked, descriptors, *_ = socket.recv_fds(supervisor, 1, 1)
    if asked == b"t":
        print("terminated all", flush=True)
        supervisor.sendall(b"t")
        continue
    end = socket.socket(fileno=descriptors[0])
    end.sendall(f"{os.getpid()} {len(os.environ['MODAL_TOKEN_SECRET'])}".encode())
"""

CHILD = """
import os, socket
from pathlib import Path
end = socket.socket(fileno=int(os.environ["MODALRUN_BROKER"]))
broker, length = end.recv(100).decode().split()
print("broker has", length)
for process in (os.getpid(), os.getppid(), int(broker)):
    for name in ("environ", "mem", "fd/0", "fd/1"):
        try:
            with open(f"/proc/{process}/{name}", "rb") as file:
                if name == "environ":
                    print(name, "VerySecretValue" in file.read().decode())
                elif process != os.getpid():
                    print(name, "opened")
        except OSError as error:
            pass
print(sorted(name for name in os.environ if "TOKEN" in name))
if "MODALRUN_DEATH" not in os.environ:
    # Another process continues the run.
    Path(os.environ["MODALRUN_RUNNING_STEPS_FILE"]).write_text('[["run", "a"]]')
os._exit(3)
"""


FINALIZE = """
import os, sys
if "modalrun.driver.finalize" in sys.orig_argv:
    # User code may have changed any file that this process reads.
    print(sorted(name for name in os.environ if "TOKEN" in name), sys.orig_argv[4:], flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc")
def test_only_the_broker_has_the_token(tmp_path: Path) -> None:
    for name, text in (("child", CHILD), ("broker", BROKER), ("sitecustomize", FINALIZE)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    secret = "VerySecretValue"
    environment = {
        **os.environ,
        "MODALRUN_TIMEOUT": "100",
        "MODALRUN_CREATED": str(time.time()),
        "MODAL_TOKEN_ID": secret,
        "MODAL_TOKEN_SECRET": secret,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    environment["MODALRUN_RUN_ID"] = "run"
    (tmp_path / "code").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, "child", "manifest"],
        env=environment,
        cwd=tmp_path / "code",
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    assert lines[0] == f"broker has {len(secret)}", done.stderr.decode()
    # Twice, as the run was continued; then in the process that records the end.
    assert lines.count(lines[0]) == lines.count("[]") == 2
    assert set(lines[:-2]) == {lines[0], "[]", "environ False"}
    assert lines[-2:] == ["terminated all", "[] []"]
