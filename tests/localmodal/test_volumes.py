"""Volumes as a whole, and their files from outside a sandbox."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import modal
import pytest
from modal.exception import AlreadyExistsError, InvalidError, NotFoundError
from modal_proto import api_pb2

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir
from tests.folders import files_with

from .support import Sdk
from .test_commands import MODAL
from .test_refusals import call

BLOCK = 8 * 1024 * 1024


@pytest.fixture(params=[2, pytest.param(1, marks=pytest.mark.exhaustive)])
def volume(sdk: Sdk, request: pytest.FixtureRequest) -> modal.Volume:
    """A volume of each version of VolumeFS."""
    made = modal.Volume.from_name(
        "data", create_if_missing=True, version=request.param, client=sdk.client
    )
    return made.hydrate()


def put(volume: modal.Volume, *, force: bool = False, **files: bytes) -> None:
    with volume.batch_upload(force=force) as batch:
        for path, content in files.items():
            batch.put_file(io.BytesIO(content), path)


def read(volume: modal.Volume, path: str) -> bytes:
    return b"".join(volume.read_file(path))


def paths(volume: modal.Volume, path: str = "/", *, recursive: bool = True) -> list[str]:
    return [entry.path for entry in volume.iterdir(path, recursive=recursive)]


def test_files(volume: modal.Volume, tmp_path: Path) -> None:
    big = os.urandom(BLOCK + 1) + bytes(BLOCK) + b"end" + bytes(100)
    up = tmp_path / "up"
    (up / "inner").mkdir(parents=True)
    (up / "inner" / "big").write_bytes(big)
    (up / "run.sh").write_text("echo")
    (up / "run.sh").chmod(0o755)
    with volume.batch_upload() as batch:
        batch.put_directory(up, "/d")
        batch.put_file(io.BytesIO(b""), "d/empty")
        batch.put_file(io.BytesIO(b"\0" * 10), "zeros")
    assert paths(volume) == ["d", "d/empty", "d/inner", "d/inner/big", "d/run.sh", "zeros"]
    assert paths(volume, "d", recursive=False) == ["d/empty", "d/inner", "d/run.sh"]
    assert [(e.path, e.size) for e in volume.listdir("d/inner/big")] == [("d/inner/big", len(big))]
    assert (read(volume, "/d/inner/big"), read(volume, "d/empty")) == (big, b"")
    assert read(volume, "zeros") == b"\0" * 10
    for missing in ("no", "d/run.sh/x"):
        with pytest.raises(FileNotFoundError):
            read(volume, missing)
        with pytest.raises(NotFoundError):
            volume.listdir(missing)
    with pytest.raises(InvalidError):
        read(volume, "d/inner")


def test_changing_files(volume: modal.Volume, sdk: Sdk) -> None:
    put(volume, a=b"1", b=b"1")
    with pytest.raises(FileExistsError, match="'a' already exists"):
        put(volume, c=b"2", a=b"2")
    assert paths(volume) == ["a", "b"]
    put(volume, a=b"22", force=True)
    assert (read(volume, "a"), read(volume, "b")) == (b"22", b"1")
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"x"), "d/x")
    for path in ("d", "a/x"):
        with pytest.raises((InvalidError, NotFoundError)):
            put(volume, **{path: b"3"}, force=True)
    get = api_pb2.VolumeGetFile2Request(volume_id=volume.object_id, path="b")
    (url,) = call(sdk.info, "VolumeGetFile2", get).get_urls
    volume.copy_files(["a"], "b")
    with pytest.raises(HTTPError, match="404"):
        # Not a mix of two contents.
        urlopen(url)
    put(volume, b=b"22", force=True)
    volume.copy_files(["a"], "c")
    volume.copy_files(["/a", "b"], "/d/")
    assert read(volume, "d/b") == b"22"
    assert read(volume, "c") == read(volume, "d/a") == read(volume, "a")
    for sources, target in ((["a", "b"], "new"), (["d"], "new"), (["no"], "new"), (["a"], "a")):
        with pytest.raises((InvalidError, NotFoundError)):
            volume.copy_files(sources, target)
    with pytest.raises(InvalidError, match="is a directory"):
        volume.remove_file("d")
    with pytest.raises(FileNotFoundError):
        volume.remove_file("no")
    volume.remove_file("/d", recursive=True)
    volume.remove_file("a")
    assert paths(volume) == ["b", "c"]
    volume.remove_file("/", recursive=True)
    assert paths(volume) == []


@pytest.mark.parametrize("volume", [2], indirect=True)
def test_a_copy_replaces_no_directory_by_a_file(volume: modal.Volume) -> None:
    put(volume, **{"a": b"1", "d/a/x": b"2", "e/d": b"3", "f/a": b"4", "g/h/a/y": b"5"})
    before = paths(volume)
    for sources, target in ((["a"], "d"), (["d"], "e"), (["d"], "a"), (["f/a", "g/h/a"], "g")):
        with pytest.raises(InvalidError, match="directory, but"):
            volume.copy_files(sources, target, recursive=True)
    assert paths(volume) == before
    volume.copy_files(["d"], "g/h", recursive=True)
    volume.copy_files(["f/a"], "g/h/d/a/x")
    assert read(volume, "g/h/d/a/x") == b"4"


def test_hostile_paths(volume: modal.Volume, sdk: Sdk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("private")
    put(volume, a=b"1")
    folder = StateDir(sdk.info.state_dir).volumes / volume.object_id
    (folder / "dir").symlink_to(secret)
    (folder / "link").symlink_to(secret / "file")
    os.mkfifo(folder / "pipe")
    (folder / os.fsdecode(b"bad\xff")).write_text("x")
    kinds = {entry.path: entry.type.name for entry in volume.listdir("/", recursive=True)}
    assert kinds == {
        "a": "FILE", "bad\ufffd": "FILE", "dir": "SYMLINK", "link": "SYMLINK", "pipe": "FIFO",
    }  # fmt: skip
    for path in ("../x", "a/../../x", "dir/file", "dir/x", "n\0l", "x" * 300, "a/" * 5000 + "a"):
        with pytest.raises((InvalidError, NotFoundError, FileNotFoundError)):
            put(volume, **{path: b"2"})
        for method in (volume.read_file, volume.listdir, volume.remove_file):
            with pytest.raises((InvalidError, NotFoundError, FileNotFoundError)):
                list(method(path))
        with pytest.raises((InvalidError, NotFoundError)):
            volume.copy_files(["a"], path)
    for path in ("link", "pipe", "dir"):
        with pytest.raises((InvalidError, NotFoundError, FileNotFoundError)):
            read(volume, path)
    put(volume, link=b"own", force=True)
    volume.remove_file("dir", recursive=True)
    assert (read(volume, "link"), (secret / "file").read_text()) == (b"own", "private")
    assert [path.name for path in secret.iterdir()] == ["file"]


def test_names(sdk: Sdk, start: Callable[..., ServerInfo], connect: Any) -> None:
    volumes, client = modal.Volume.objects, sdk.client
    modal.Environment.objects.create("other", client=client)
    for name in ("one", "two", "three"):
        volumes.create(name, client=client)
    volumes.create("one", environment_name="other", client=client)
    with pytest.raises(AlreadyExistsError, match="'one' already exists"):
        volumes.create("one", client=client)
    volumes.create("one", allow_existing=True, client=client)
    modal.Volume.rename("two", "second", client=client)
    with pytest.raises(AlreadyExistsError):
        modal.Volume.rename("second", "one", client=client)
    with pytest.raises(InvalidError):
        modal.Volume.rename("second", "a/b", client=client)
    with modal.Volume.ephemeral(client=client) as passing:
        put(passing, a=b"secret of the moment")
        again = modal.Volume.from_id(passing.object_id, client=client)
        assert (paths(again), again.info().name) == (["a"], None)
        listed = [v.name for v in volumes.list(client=client)]
    assert listed == ["three", "second", "one"]
    assert [v.name for v in volumes.list(max_objects=2, client=client)] == ["three", "second"]
    assert [v.name for v in volumes.list(environment_name="other", client=client)] == ["one"]
    kept = modal.Volume.from_name("second", client=client).hydrate()
    put(kept, a=b"kept")
    launcher.stop(sdk.info.state_dir)
    sdk = connect(start())
    kept = modal.Volume.from_id(kept.object_id, client=sdk.client)
    assert read(kept, "a") == b"kept"
    volumes.delete("second", client=sdk.client)
    for gone in (lambda: read(kept, "a"), lambda: volumes.delete("second", client=sdk.client)):
        with pytest.raises((NotFoundError, FileNotFoundError)):
            gone()
    volumes.delete("second", allow_missing=True, client=sdk.client)
    launcher.stop(sdk.info.state_dir)
    assert not files_with(StateDir(sdk.info.state_dir).volumes, "kept")


@pytest.mark.exhaustive
def test_the_command_line(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "up" / "deep").mkdir(parents=True)
    (tmp_path / "up" / "deep" / "file").write_text("x")
    local, down = str(tmp_path / "up"), str(tmp_path / "down")
    (tmp_path / "down").mkdir()
    said = sdk.script(
        MODAL,
        str(
            [
                ["volume", "create", "v", "--version", "2"],
                ["volume", "put", "v", local, "/d"],
                ["volume", "cp", "v", "-r", "d", "e"],
                ["volume", "ls", "v", "e/deep"],
                ["volume", "rm", "v", "-r", "d"],
                ["volume", "get", "v", "/", down],
                ["volume", "rename", "--yes", "v", "w"],
                ["volume", "list", "--json"],
                ["volume", "delete", "--yes", "w"],
                ["volume", "list", "--json"],
            ]
        ).replace("'", '"'),
    )
    assert "e/deep/file" in said
    assert '\\"name\\": \\"w\\"' in said
    assert said.rstrip().endswith('"[]\\n"]')
    assert (tmp_path / "down" / "e" / "deep" / "file").read_text() == "x"
