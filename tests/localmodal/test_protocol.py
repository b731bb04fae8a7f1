"""Authentication, missing objects, unknown RPCs and repeated calls."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import modal
import pytest
from modal.exception import AuthError, NotFoundError, ServiceError, UnimplementedError

from modalrun.localmodal.launcher import StateDir
from modalrun.localmodal.server_info import ServerInfo

from .support import TREE, Sdk, close

V1_ID = "sb-" + "a" * 22
V2_ID = "sb-" + "A" * 26


def test_importing_the_server_imports_no_sdk() -> None:
    code = (
        "import sys, modalrun.localmodal.local_server; print({'modal', 'zenml'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": TREE}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("wrong", ["token_id", "token_secret"])
def test_a_wrong_token(start: Callable[..., ServerInfo], connect: Any, wrong: str) -> None:
    info = start()
    sdk = connect(info)
    values = {"token_id": info.token_id, "token_secret": info.token_secret, wrong: "ak-wrong"}
    client = modal.Client.from_credentials(**values)
    with pytest.raises(AuthError, match="modalrun local env"):
        modal.App.lookup("tests", create_if_missing=True, client=client)
    close(client)
    assert sdk.app().app_id


def test_http_without_a_token(sdk: Sdk) -> None:
    address = sdk.info.url.removeprefix("http://")
    for method, path, status in (
        ("GET", "/status", 404),
        ("POST", "/stop", 404),
        ("GET", "/log", 404),
        ("PUT", "/blob/bl-x/wrong.wrong.wrong", 403),
    ):
        connection = http.client.HTTPConnection(address)
        token = {"Authorization": f"Bearer {sdk.info.token_secret}"}
        connection.request(method, path, headers=token)
        assert connection.getresponse().status == status
        connection.close()


def test_the_command_router_wants_the_token_of_the_task(sdk: Sdk) -> None:
    code = """
import asyncio, sys
from grpclib.client import Channel
from grpclib.exceptions import GRPCError
from modal_proto.task_command_router_grpc import TaskCommandRouterStub
from modal_proto.task_command_router_pb2 import SandboxStdioReadV2Request

async def main(port, *tokens):
    channel = Channel("127.0.0.1", int(port))
    for token in tokens:
        stub = TaskCommandRouterStub(channel)
        async with stub.SandboxStdioReadV2.open(metadata={"authorization": f"Bearer {token}"}) as s:
            await s.send_message(SandboxStdioReadV2Request(task_id="ta-x", file_descriptor=1))
            try:
                await s.recv_message()
            except GRPCError as error:
                print(error.status.name)
    channel.close()

asyncio.run(main(*sys.argv[1:]))
"""
    port = sdk.info.url.rpartition(":")[2]
    assert sdk.script(code, port, "", "a.b.c", sdk.info.token_secret).split() == (
        ["UNAUTHENTICATED"] * 3
    )


def test_unknown_ids(sdk: Sdk) -> None:
    for sandbox_id in (V1_ID, V2_ID):
        with pytest.raises(NotFoundError):
            sdk.sandbox(sandbox_id)
    with pytest.raises(NotFoundError):
        sdk.create("true", image=modal.Image.from_id("im-unknown", client=sdk.client))
    with pytest.raises(NotFoundError):
        modal.App.lookup("unknown", client=sdk.client)
    with pytest.raises(NotFoundError):
        modal.App.lookup("x", create_if_missing=True, environment_name="no", client=sdk.client)
    with pytest.raises(NotFoundError):
        sdk.create("true", secrets=[modal.Secret.from_name("unknown")])


def test_unimplemented_names_the_rpc(sdk: Sdk) -> None:
    with pytest.raises(UnimplementedError, match="does not have FunctionGet"):
        modal.Function.from_name("app", "function").hydrate(sdk.client)
    sandbox = sdk.create("sleep", "1000")
    with pytest.raises(UnimplementedError, match="does not have TaskSnapshotFilesystem"):
        sandbox.snapshot_filesystem()
    with pytest.raises(UnimplementedError, match="include_oidc_identity_token"):
        sdk.create("true", include_oidc_identity_token=True)


def test_every_rpc_has_an_answer() -> None:
    from modal_proto import api_pb2, task_command_router_pb2

    from modalrun.localmodal.server.rpc import COMMAND_ROUTER, CONTROL_PLANE, Dispatcher

    nothing: Any = None
    mapping = Dispatcher(
        authorise=nothing, before=nothing, active=nothing, problem=nothing
    ).__mapping__()
    services = [
        api_pb2.DESCRIPTOR.services_by_name["ModalClient"],
        task_command_router_pb2.DESCRIPTOR.services_by_name["TaskCommandRouter"],
    ]
    assert [service.full_name for service in services] == [CONTROL_PLANE, COMMAND_ROUTER]
    for service in services:
        for method in service.methods:
            assert f"/{service.full_name}/{method.name}" in mapping


def test_a_lost_answer_creates_nothing_twice(sdk: Sdk, backend: dict[str, Any]) -> None:
    app = sdk.app()
    rule = {"rpc": "SandboxCreate*", "action": "lose_answer", "times": 2}
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps([rule]))
    sandbox = sdk.create("sleep", "1000", app=app, name="once", **backend)
    listed = modal.Sandbox.list(app_id=app.app_id, client=sdk.client)
    assert [found.object_id for found in listed] == [sandbox.object_id]


def test_scripted_errors(sdk: Sdk) -> None:
    rules = [
        {"rpc": "AppGetOrCreate", "action": "error", "status": "NOT_FOUND", "message": "gone"},
        {"rpc": "AppGetOrCreate", "action": "delay", "seconds": 0.01},
        {"rpc": "SandboxWait*", "action": "error", "times": None},
    ]
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(rules))
    with pytest.raises(NotFoundError, match="gone"):
        sdk.app()
    assert sdk.app().app_id
    with pytest.raises(ServiceError, match="a scripted fault"):
        sdk.create("true").wait()


def test_boot_delay(sdk: Sdk) -> None:
    script = {"boot_delay": 1000, "rules": []}
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(script))
    sandbox = sdk.create("echo", "never")
    assert sandbox.poll() is None
    sandbox.terminate()
    sandbox.wait(raise_on_termination=False)
    assert sandbox.returncode == 137
    assert sandbox.stdout.read() == ""
