"""What the server refuses because Modal does, as the SDK's user sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import modal
import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal import _image
from modal.exception import AlreadyExistsError, InvalidError, NotFoundError
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientStub

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo
from modalrun.util import modal_catalog

from .support import Sdk

BEYOND_THE_CATALOG: dict[str, dict[str, Any]] = {
    "timeout 86401 is above Modal's maximum of 86400": {"timeout": 86401},
    "cpu 65 is above": {"cpu": 65},
    "memory 344065 is above": {"memory": 344065},
    "gpu count 9 is above": {"gpu": "H100:9"},
    "gpu count 5 is above Modal's maximum of 4 GPUs of type A10": {"gpu": "a10g:5"},
    "no GPU type 'V100'": {"gpu": "V100"},
    "no region 'us-eas'. Did you mean 'us-east'": {"region": ["eu", "us-eas"]},
    "no region 'us-east-1'": {"region": "us-east-1"},
    "no cloud 'azure'": {"cloud": "azure"},
}

AT_THE_LIMITS = {
    "timeout": 86400,
    "cpu": 64,
    "memory": 344064,
    "region": ["US", "jp"],
    "cloud": "gcp",
}


def call(info: ServerInfo, rpc: str, request: Any, sdk: str = "1.6.4") -> Any:
    """Call an RPC without the SDK, which checks much itself."""

    async def ask() -> Any:
        host, _, port = info.url.removeprefix("http://").partition(":")
        headers = {
            "x-modal-token-id": info.token_id,
            "x-modal-token-secret": info.token_secret,
            "x-modal-client-version": sdk,
        }
        channel = Channel(host, int(port))
        try:
            return await getattr(ModalClientStub(channel), rpc)(request, metadata=headers)
        finally:
            channel.close()

    return asyncio.run(ask())


def refused(info: ServerInfo, rpc: str, request: Any) -> str:
    with pytest.raises(GRPCError) as caught:
        call(info, rpc, request)
    assert caught.value.status is Status.INVALID_ARGUMENT
    return str(caught.value.message)


def test_a_sandbox_beyond_the_catalog(sdk: Sdk) -> None:
    app = sdk.app()
    for text, options in BEYOND_THE_CATALOG.items():
        with pytest.raises(InvalidError) as caught:
            sdk.create("true", app=app, **options)
        assert text in str(caught.value)
        assert "modalrun local start --lenient" in str(caught.value)
    assert sdk.create("true", app=app, **AT_THE_LIMITS).wait() is None
    for gpu in ("any", "a10g:4", "H100!:8"):
        sdk.create("true", app=app, gpu=gpu).wait()


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_a_lenient_server(
    state: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "variable":
        monkeypatch.setenv(launcher.LENIENT_VARIABLE, "1")
    sdk = connect(launcher.ensure_running(state, lenient=way == "argument"))
    app = sdk.app()
    for options in BEYOND_THE_CATALOG.values():
        sdk.create("true", app=app, **options).wait()
    request = api_pb2.EnvironmentUpdateRequest(current_name="main", image_builder_version="2027.1")
    call(sdk.info, "EnvironmentUpdate", request)
    status = launcher.status(state)
    assert status is not None
    assert status["lenient"] is True
    # Names are no matter of the catalog.
    with pytest.raises(InvalidError, match="Invalid tag"):
        sdk.create("true", app=app, tags={"a b": "c"})


def test_names_and_tags(sdk: Sdk) -> None:
    long, like_an_app = "x" * 65, "ap-" + "a" * 22
    create = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
    for name in ("a b", "ü", "a/b", long, like_an_app):
        for rpc, request in (
            ("AppGetOrCreate", api_pb2.AppGetOrCreateRequest(app_name=name)),
            ("SecretGetOrCreate", api_pb2.SecretGetOrCreateRequest(deployment_name=name)),
            ("VolumeGetOrCreate", api_pb2.VolumeGetOrCreateRequest(deployment_name=name)),
        ):
            request.object_creation_type = create
            assert f"name: '{name}'" in refused(sdk.info, rpc, request)
        definition = api_pb2.Sandbox(name=name)
        app_id = sdk.app().app_id
        sandbox = api_pb2.SandboxCreateV2Request(app_id=app_id, definition=definition)
        assert "Invalid Sandbox name" in refused(sdk.info, "SandboxCreateV2", sandbox)
    for name in ("a.b", "en-dev", "EN-dev", "-a", "a b", long):
        environment = api_pb2.EnvironmentCreateRequest(name=name)
        assert "Invalid Environment name" in refused(sdk.info, "EnvironmentCreate", environment)
    for tags in ({"a b": "c"}, {"a": ""}, {"a": "x" * 64}, {"a": "ü"}):
        with pytest.raises(InvalidError, match="Invalid tag"):
            sdk.create("true", tags=tags)
    for key in ("A-B", "1A", "", "ü"):
        secret = api_pb2.SecretGetOrCreateRequest(env_dict={key: "x"})
        assert "Secret key name" in refused(sdk.info, "SecretGetOrCreate", secret)
    box = sdk.create("true", tags={"a-._": "x" * 63}, name="x" * 64)
    with pytest.raises(InvalidError, match="Invalid tag"):
        box.set_tags({"a": "b c"})
    box.wait()


def test_what_nobody_made(sdk: Sdk) -> None:
    client = sdk.client
    for missing in (
        modal.Volume.from_name("no", client=client),
        modal.Secret.from_name("no", client=client),
        modal.Environment.from_name("no", client=client),
    ):
        with pytest.raises(NotFoundError, match="'no' not found"):
            missing.hydrate()
    with pytest.raises(NotFoundError, match="Environment 'no'"):
        modal.Volume.from_name("v", environment_name="no", client=client).hydrate()
    modal.Volume.objects.create("v", client=client)
    modal.Volume.from_name("v", client=client).hydrate()
    with pytest.raises(AlreadyExistsError):
        modal.Volume.objects.create("v", client=client)
    modal.Volume.from_name("other", create_if_missing=True, client=client).hydrate()


def test_an_environment_is_deleted_with_all_that_is_in_it(sdk: Sdk) -> None:
    where: dict[str, Any] = {"environment_name": "stg", "create_if_missing": True}
    for _ in range(2):
        modal.Environment.objects.create("stg", client=sdk.client)
        kinds = (modal.Volume, modal.Dict, modal.Queue, modal.Secret)
        listed = [kind.objects.list(environment_name="stg", client=sdk.client) for kind in kinds]
        assert listed == [[], [], [], []]
        modal.Dict.from_name("d", client=sdk.client, **where).put(1, 2)
        modal.Queue.from_name("q", client=sdk.client, **where).put(1)
        modal.Secret.objects.create("s", {"A": "1"}, environment_name="stg", client=sdk.client)
        app = modal.App.lookup("a", client=sdk.client, **where)
        volume = modal.Volume.from_name("v", client=sdk.client, **where)
        sandbox = sdk.create("sh", "-c", "touch /v/x; sleep 100", app=app, volumes={"/v": volume})
        modal.Environment.objects.delete("stg", client=sdk.client)
        sandbox.wait(raise_on_termination=False)
        assert sandbox.returncode == 137
        with pytest.raises(NotFoundError, match=volume.object_id):
            volume.listdir("/")


def test_mount_points(sdk: Sdk) -> None:
    volume = modal.Volume.from_name("v", create_if_missing=True, client=sdk.client)
    volume.hydrate()
    app_id = sdk.app().app_id
    for paths in (
        ["/"],
        ["/root"],
        ["/tmp"],
        ["data"],
        ["//proc"],
        ["/a/../b"],
        ["/a/"],
        ["/a", "/b"],
    ):
        mounts = [
            api_pb2.VolumeMount(volume_id=volume.object_id, mount_path=path) for path in paths
        ]
        request = api_pb2.SandboxCreateV2Request(
            app_id=app_id, definition=api_pb2.Sandbox(volume_mounts=mounts)
        )
        text = refused(sdk.info, "SandboxCreateV2", request)
        assert "be mounted" in text or "canonical, absolute path" in text
    other = modal.Volume.from_name("w", create_if_missing=True, client=sdk.client)
    with pytest.raises(InvalidError, match=r"Two Volumes .* same path: /a/b"):
        sdk.create("true", volumes={"/a/b": volume, "/a//b": other})
    sdk.create("true", volumes={"/root/.cache": volume}).wait()


def test_ports(sdk: Sdk, backend: dict[str, Any]) -> None:
    app = sdk.app()
    for number in (0, 65536, 70000):
        with pytest.raises(InvalidError, match=f"Invalid port: {number}"):
            sdk.create("true", app=app, unencrypted_ports=[number], **backend)
    for options in ({"h2_ports": [8000]}, {"unencrypted_ports": [8000]}):
        with pytest.raises(InvalidError, match="Port 8000 is asked for twice"):
            sdk.create("true", app=app, encrypted_ports=[8000], **options, **backend)


def test_a_volume_over_files(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    image = modal.Image.debian_slim().add_local_file(tmp_path / "file", "/app/code/file")
    volume = modal.Volume.from_name("v", create_if_missing=True, client=sdk.client)
    for path, started in (("/app", False), ("/app/code", False), ("/app/other", True)):
        sandbox = sdk.create("true", image=image, volumes={path: volume})
        sandbox.wait()
        refusal = f'cannot mount volume on non-empty path: "{path}"'
        assert (refusal in sdk.record(sandbox).exception) != started


VERSIONS = {"1.6.2": "2025.06", "1.6.3": "2026.10", "1.6.4": "2026.10", "1.7.0.dev1": "2026.10"}
"""SDK versions, and the newest image builder version that each knows."""


def builder_of(info: ServerInfo, sdk: str) -> str:
    answer = call(info, "EnvironmentGetOrCreate", api_pb2.EnvironmentGetOrCreateRequest(), sdk)
    return str(answer.metadata.settings.image_builder_version)


def test_the_image_builder_version(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODAL_IMAGE_BUILDER_VERSION", raising=False)
    newest = {version: builder_of(sdk.info, version) for version in VERSIONS}
    assert newest == VERSIONS
    with pytest.raises(InvalidError, match=r"Unsupported Python version: '3\.10'"):
        sdk.create("true", image=modal.Image.debian_slim("3.10"))
    update = api_pb2.EnvironmentUpdateRequest(current_name="main", image_builder_version="2024.04")
    call(sdk.info, "EnvironmentUpdate", update)
    assert {builder_of(sdk.info, version) for version in VERSIONS} == {"2024.04"}
    update.image_builder_version = "2024.05"
    assert "It has 2023.12, " in refused(sdk.info, "EnvironmentUpdate", update)
    image = api_pb2.ImageGetOrCreateRequest(builder_version="2027.01")
    assert "no image builder version '2027.01'" in refused(sdk.info, "ImageGetOrCreate", image)
    update.image_builder_version = ""
    call(sdk.info, "EnvironmentUpdate", update)
    assert builder_of(sdk.info, "1.6.4") == "2026.10"


def test_the_catalog_is_that_of_the_sdk() -> None:
    pythons = {k: tuple(v) for k, v in _image.SUPPORTED_PYTHON_SERIES.items() if k != "PREVIEW"}
    assert dict(modal_catalog.BUILDER_PYTHONS) == pythons
    known = [value.name for value in api_pb2.CloudProvider.DESCRIPTOR.values]
    clouds = {name.removeprefix("CLOUD_PROVIDER_").lower() for name in known}
    assert set(modal_catalog.CLOUDS) == clouds - {"unspecified"}
