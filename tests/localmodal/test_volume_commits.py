"""When what a sandbox writes into a volume is seen elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.exception import ConflictError, NotFoundError

from modalrun.localmodal.local_server import SHARED_VOLUMES_VARIABLE
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir

from .support import Sdk, kill_server
from .test_volumes import paths, put, read

READER = "while read line; do cat /data/x /data/y 2>&-; echo; done"
COMMIT = """
import os, sys, modal
volume = modal.Volume.from_name("data")
open("x", "w").write("by commit")
volume.commit()
print("committed", flush=True)
sys.stdin.readline()
os.chdir("/")
with open("/data/x"):
    try:
        volume.reload()
    except RuntimeError as error:
        print(error, flush=True)
volume.reload()
print(open("/data/y").read(), flush=True)
other = modal.Volume.from_name("other", create_if_missing=True)
try:
    other.reload()
except RuntimeError as error:
    print(error)
"""


@pytest.fixture
def volume(sdk: Sdk) -> modal.Volume:
    made = modal.Volume.from_name("data", create_if_missing=True, version=2, client=sdk.client)
    return made.hydrate()


def test_others_see_it_after_the_end(sdk: Sdk, volume: modal.Volume, backend: Any) -> None:
    put(volume, x=b"0")
    options = {"volumes": {"/data": volume}, **backend}
    reader = sdk.create("sh", "-c", READER, **options)
    seen = iter(reader.stdout)

    def look() -> str:
        reader.stdin.write("\n")
        reader.stdin.drain()
        return next(seen)

    assert look() == "0\n"
    writer = sdk.create(
        "sh", "-c", "cd data; echo 1 > x; echo 2 > y; echo; read line", workdir="/", **options
    )
    assert next(iter(writer.stdout)) == "\n"
    assert (paths(volume), read(volume, "x"), look()) == (["x"], b"0", "0\n")
    writer.stdin.write_eof()
    writer.stdin.drain()
    writer.wait(raise_on_termination=False)
    assert (read(volume, "x"), read(volume, "y"), look()) == (b"1\n", b"2\n", "0\n")
    reader.reload_volumes()
    assert look() == "1\n"
    assert next(seen) == "2\n"
    assert next(seen) == "\n"
    # A kill commits as well.
    reader.exec("sh", "-c", "rm /data/x").wait()
    assert "x" in paths(volume)
    reader.terminate(wait=True)
    assert paths(volume) == ["y"]
    with pytest.raises(NotFoundError, match="has ended"):
        reader.reload_volumes()


def test_a_linked_file_of_any_name_is_changed_in_place(sdk: Sdk, volume: modal.Volume) -> None:
    options = {"volumes": {"/data": volume}, "workdir": "/data"}
    name = '"$(printf "bad\\377")"'
    sdk.create("sh", "-c", f"truncate -s 70M {name}", **options).wait()
    # A disk that can clone would share nothing.
    folder = StateDir(sdk.info.state_dir).volumes / volume.object_id
    script = f"stat -c %h {name}; printf x >> {name}"
    sandbox = sdk.create("sh", "-c", script, **options)
    sandbox.wait()
    links = int(sandbox.stdout.read())
    assert ("bad\\udcff was changed in place" in sandbox.stderr.read()) == (links > 1)
    assert [file.stat().st_size for file in folder.iterdir()] == [70 * 2**20 + 1]


def test_commit_inside_a_sandbox(sdk: Sdk, volume: modal.Volume) -> None:
    sandbox = sdk.create(
        "python",
        "-c",
        COMMIT,
        volumes={"/data": volume},
        workdir="/data",
        env=dict(sdk.info.environ()),
    )
    printed = iter(sandbox.stdout)
    assert next(printed) == "committed\n"
    assert read(volume, "x") == b"by commit"
    put(volume, y=b"of others")
    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    busy = "there are open files preventing the operation: /data"
    assert next(printed).startswith(f"{busy}/x is open")
    assert next(printed) == "of others\n"
    assert "only inside a sandbox that mounts it" in next(printed)
    other = sdk.create("cat", volumes={"/data": volume}, workdir="/data")
    other.exec("sh", "-c", "echo synced > z").wait()
    assert "z" not in paths(volume)
    other.exec("sync", "/data").wait()
    assert read(volume, "z") == b"synced\n"
    with pytest.raises(ConflictError, match=f"{busy} is open"):
        other.reload_volumes()
    with pytest.raises((RuntimeError, ConflictError)):
        volume.commit()


def test_mount_options(sdk: Sdk, volume: modal.Volume) -> None:
    put(volume, x=b"0")
    for options in ({"read_only": True}, {"sub_path": "/a/b"}):
        sdk.create(
            "sh", "-c", "echo 1 > x",
            volumes={"/data": volume.with_mount_options(**options)}, workdir="/data",
        ).wait(raise_on_termination=False)  # fmt: skip
    assert (read(volume, "x"), read(volume, "a/b/x")) == (b"0", b"1\n")
    volume.remove_file("a", recursive=True)
    inner = modal.Volume.from_name("inner", create_if_missing=True, client=sdk.client)
    for number in ("1", "2"):
        sandbox = sdk.create(
            "sh", "-c", f"ls deep/sub; echo {number} > deep/sub/in; echo {number} > out",
            volumes={"/data/deep/sub": inner, "/data": volume}, workdir="/data",
        )  # fmt: skip
        sandbox.wait()
        assert sandbox.stdout.read() == ("" if number == "1" else "in\n")
        assert (paths(volume), paths(inner)) == (["out", "x"], ["in"])
        assert (read(volume, "out"), read(inner, "in")) == (f"{number}\n".encode(),) * 2


@pytest.mark.exhaustive
def test_a_killed_server(
    sdk: Sdk, volume: modal.Volume, start: Callable[..., ServerInfo], connect: Any
) -> None:
    sandbox = sdk.create(
        "sh", "-c", "echo 1 > x; echo; cat", volumes={"/data": volume}, workdir="/data"
    )
    assert next(iter(sandbox.stdout)) == "\n"
    kill_server(sdk.info)
    again = connect(start())
    volume = modal.Volume.from_name("data", client=again.client)
    assert read(volume, "x") == b"1\n"


@pytest.mark.exhaustive
def test_shared_volumes(
    start: Callable[..., ServerInfo], connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SHARED_VOLUMES_VARIABLE, "1")
    sdk = connect(start())
    volume = modal.Volume.from_name("data", create_if_missing=True, client=sdk.client)
    writer = sdk.create(
        "sh", "-c", "echo 1 > x; echo; read line; cat y", volumes={"/data": volume}, workdir="/data"
    )
    printed = iter(writer.stdout)
    assert next(printed) == "\n"
    assert read(volume, "x") == b"1\n"
    put(volume, y=b"2\n")
    writer.stdin.write("\n")
    writer.stdin.drain()
    assert next(printed) == "2\n"


@pytest.mark.exhaustive
def test_a_link_in_a_shared_volume_leads_nowhere_else(
    start: Callable[..., ServerInfo], connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SHARED_VOLUMES_VARIABLE, "1")
    sdk = connect(start())
    volume = modal.Volume.from_name("data", create_if_missing=True, client=sdk.client)
    put(volume, **{"a/b/x": b"0"})
    other = sdk.create("cat", volumes={"/data": volume})
    other.exec("true").wait()
    faults = StateDir(sdk.info.state_dir).faults_file
    faults.write_text('{"scheduling": {"T4": null}}')
    app, mount = sdk.app(), volume.with_mount_options(sub_path="/a/b")
    with ThreadPoolExecutor(1) as thread:
        created = thread.submit(
            sdk.create, "touch", "/data/y", app=app, volumes={"/data": mount}, gpu="T4"
        )
        while len(list(modal.Sandbox.list(app_id=app.app_id, client=sdk.client))) < 2:
            assert not created.done()
        swap = "mv /data/a/b /data/c; ln -s $1 /data/a/b"
        other.exec("sh", "-c", swap, "-", str(tmp_path)).wait()
        faults.write_text("{}")
        sandbox = created.result()
    sandbox.wait(raise_on_termination=False)
    assert not (tmp_path / "y").exists()
    assert "/a/b: Too many levels of symbolic links" in sandbox.stderr.read()
