"""What the server accepts and does not keep: the SDK's user sees a warning or an error by name."""

from __future__ import annotations

import asyncio
import re
import warnings
from pathlib import Path
from typing import Any

import modal
import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal.exception import ImageBuildError, ServerWarning, UnimplementedError

from modalrun.localmodal.server_info import ServerInfo

from .support import Sdk


def call_unknown(info: ServerInfo, path: str, token: str) -> GRPCError:
    async def ask() -> Any:
        host, _, port = info.url.removeprefix("http://").partition(":")
        channel = Channel(host, int(port))
        try:
            method = UnaryUnaryMethod(channel, path, Empty, Empty)
            headers = {"x-modal-token-id": info.token_id, "x-modal-token-secret": token}
            await method(Empty(), metadata=headers)
        finally:
            channel.close()

    with pytest.raises(GRPCError) as caught:
        asyncio.run(ask())
    return caught.value


def test_an_rpc_of_a_newer_sdk(sdk: Sdk) -> None:
    for path in ("/modal.client.ModalClient/SandboxTeleport", "/modal.other.Service/SandboxFly"):
        error = call_unknown(sdk.info, path, sdk.info.token_secret)
        assert error.status is Status.UNIMPLEMENTED
        assert error.message == f"The local Modal server does not have {path.rpartition('/')[2]}"
        assert call_unknown(sdk.info, path, "wrong").status is Status.UNAUTHENTICATED


def test_fields_that_are_not_kept(sdk: Sdk, backend: dict[str, Any]) -> None:
    app = sdk.app()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sdk.create("true", app=app, **backend).wait()
        assert caught == []
        options = {"verbose": True, "runtime": "gvisor", "cpu": (1, 2), "memory": (128, 256)}
        sdk.create("true", app=app, **options, **backend).wait()
    assert {one.category for one in caught} == {ServerWarning}
    rpc = "SandboxCreate" if backend else "SandboxCreateV2"
    assert sorted(str(one.message) for one in caught) == [
        f"The local Modal server ignores 'definition.{name}' of {rpc}"
        for name in ("resources.memory_mb_max", "resources.milli_cpu_max", "runtime", "verbose")
    ]
    with pytest.raises(UnimplementedError, match=r"'definition\.custom_domain' of SandboxCreate"):
        sdk.create("true", app=app, custom_domain="example.com", **backend)
    with pytest.raises(UnimplementedError, match="allowed_domains"):
        sdk.create("true", app=app, outbound_domain_allowlist=["example.com"], **backend)


def test_the_files_and_lines_of_a_dockerfile(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.txt").write_text("from the context\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.11-slim\n"
        "ARG WHO=nobody\n"
        "ENV GREETING=hello_$WHO\n"
        "WORKDIR /work\n"
        "COPY conf ./conf/\n"
        "USER daemon\n"
        'SHELL ["/bin/bash", "-c"]\n'
        "CMD cat conf/a.txt; echo $GREETING ${BASH_VERSION:+bash}\n"
    )
    image = modal.Image.from_dockerfile(
        tmp_path / "Dockerfile", context_dir=tmp_path, build_args={"WHO": "you"}
    )
    with pytest.warns(ServerWarning, match=r"USER daemon \(sandboxes have one user"):
        sandbox = sdk.create(image=image)
    assert sandbox.stdout.read() == "from the context\nhello_you bash\n"
    plain = modal.Image.debian_slim().entrypoint(["echo", "[1, 2]"]).cmd(["a,b", "$X"])
    assert sdk.create(image=plain).stdout.read() == "[1, 2] a,b $X\n"


def test_the_unknown_command_of_a_registry_image(sdk: Sdk) -> None:
    with pytest.warns(ServerWarning, match="The command of nginx:1 is not known here"):
        sdk.create(image=modal.Image.from_registry("nginx:1")).terminate()


def test_a_dockerfile_that_fails_on_modal(sdk: Sdk) -> None:
    image = modal.Image.debian_slim().dockerfile_commands("ENV A='x")
    with pytest.raises(ImageBuildError) as caught:
        sdk.create("true", image=image)
    failed = modal.Image.from_id(caught.value.image_id, client=sdk.client)
    logged = [entry.message for entry in failed.logs.fetch()]
    assert logged == ["No closing quotation: A='x\n"]
    image = modal.Image.debian_slim().apt_install("ffmpeg")
    with pytest.warns(ServerWarning) as caught_warnings:
        sdk.create("true", image=image).wait()
    told = r"does not do this of an image: RUN apt-get install -y ffmpeg \(commands are not"
    assert [bool(re.search(told, str(one.message))) for one in caught_warnings] == [True]
    logged = [entry.message for entry in image.logs.fetch()]
    assert any("Not executed on this machine: apt-get install" in line for line in logged)


def test_why_a_sandbox_does_not_start(sdk: Sdk, tmp_path: Path, backend: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("x")
    image = modal.Image.debian_slim().add_local_file(tmp_path / "file", "/data/file")
    volume = modal.Volume.from_name("v", create_if_missing=True, client=sdk.client)
    app = sdk.app()
    sandbox = sdk.create("true", app=app, image=image, volumes={"/data": volume}, **backend)
    sandbox.wait()
    text = 'The sandbox could not be started: cannot mount volume on non-empty path: "/data"'
    assert sandbox.stderr.read() == f"{text}\n"
    assert sdk.record(sandbox).exception == text
    assert sandbox.returncode == 1
    at_a_file = sdk.create("true", app=app, image=image, workdir="/data/file", **backend)
    at_a_file.wait()
    assert at_a_file.stderr.read().endswith("File exists: '/data/file'\n")
    nameless = sdk.create("", app=app, **backend)
    nameless.wait()
    assert nameless.returncode == 126
    assert nameless.stderr.read().startswith("The empty command: ")
