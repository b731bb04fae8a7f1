"""The SDK's filesystem API, which runs a program in the sandbox by `exec`."""

from __future__ import annotations

import threading
from pathlib import Path

import modal
import pytest
from modal.exception import (
    SandboxFilesystemDirectoryNotEmptyError,
    SandboxFilesystemError,
    SandboxFilesystemIsADirectoryError,
    SandboxFilesystemNotADirectoryError,
    SandboxFilesystemNotFoundError,
    SandboxFilesystemPathAlreadyExistsError,
)
from modal.types import FileType, FileWatchEventType

from .support import PATIENCE, Sdk


@pytest.fixture
def sandbox(sdk: Sdk) -> modal.Sandbox:
    """A sandbox that waits."""
    return sdk.create("sleep", "1000", workdir="/job")


def test_files_and_folders_and_the_errors_of_the_sdk(
    sandbox: modal.Sandbox, tmp_path: Path
) -> None:
    files = sandbox.filesystem
    data = bytes(range(256)) * 20_000
    files.write_bytes(data, "/job/deep/er/data.bin")
    assert files.read_bytes("/job/deep/er/data.bin") == data
    files.write_text("shört\n", "/job/text")
    assert files.read_text("/job/text") == "shört\n"
    files.write_text("", "/job/text")
    assert files.read_text("/job/text") == ""
    (tmp_path / "here").write_bytes(data)
    files.copy_from_local(tmp_path / "here", "/tmp/there")
    files.copy_to_local("/tmp/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    process = sandbox.exec("cat", "deep/er/data.bin", text=False)
    assert process.stdout.read() == data

    files.make_directory("/job/a/b")
    files.make_directory("/job/a/b")
    files.write_text("12345", "/job/a/file")
    assert sandbox.exec("ln", "-s", "file", "a/link").wait() == 0
    assert sandbox.exec("chmod", "600", "a/file").wait() == 0
    entries = {entry.name: entry for entry in files.list_files("/job/a")}
    assert list(entries) == ["b", "file", "link"]
    assert [entry.type for entry in entries.values()] == [
        FileType.DIRECTORY,
        FileType.FILE,
        FileType.SYMLINK,
    ]
    assert entries["file"].path == "/job/a/file"
    assert (entries["file"].size, entries["link"].symlink_target) == (5, "file")
    found = files.stat("/job/a/file")
    assert found == entries["file"]
    assert found.permissions[-3:] == f"{found.mode & 0o777:o}"
    files.remove("/job/a/file")
    files.remove("/job/a", recursive=True)
    assert [entry.name for entry in files.list_files("/job")] == ["deep", "text"]
    files.write_text("x", "/job/file")
    files.write_text("x", "/job/folder/file")
    with pytest.raises(SandboxFilesystemNotFoundError, match=r"No such file.*: /job/missing"):
        files.read_text("/job/missing")
    with pytest.raises(SandboxFilesystemNotFoundError):
        files.stat("/job/missing")
    with pytest.raises(SandboxFilesystemNotFoundError):
        files.make_directory("/job/no/parent", create_parents=False)
    with pytest.raises(SandboxFilesystemIsADirectoryError):
        files.read_text("/job/folder")
    with pytest.raises(SandboxFilesystemIsADirectoryError):
        files.write_bytes(b"x" * 10_000_000, "/job/folder")
    with pytest.raises(SandboxFilesystemNotADirectoryError):
        files.list_files("/job/file")
    with pytest.raises(SandboxFilesystemNotADirectoryError):
        files.write_text("x", "/job/file/below")
    with pytest.raises(SandboxFilesystemDirectoryNotEmptyError):
        files.remove("/job/folder")
    with pytest.raises(SandboxFilesystemPathAlreadyExistsError):
        files.make_directory("/job/file")


def test_the_working_folder_may_be_deleted(sandbox: modal.Sandbox) -> None:
    assert sandbox.exec("rmdir", "/job").wait() == 0
    sandbox.filesystem.write_text("x", "/tmp/file")
    assert sandbox.filesystem.read_text("/tmp/file") == "x"


@pytest.mark.exhaustive
def test_a_path_that_no_system_has(sandbox: modal.Sandbox) -> None:
    with pytest.raises(SandboxFilesystemError, match="embedded null byte"):
        sandbox.filesystem.read_text("/job/a\0b")


@pytest.mark.exhaustive
def test_changes_are_watched(sandbox: modal.Sandbox) -> None:
    files = sandbox.filesystem
    files.make_directory("/job/seen")
    touching = threading.Event()

    def touch() -> None:
        # Nothing tells when the watch has begun.
        while not touching.wait(0.1):
            files.write_text("x", "/job/seen/new/file")
            files.remove("/job/seen/new", recursive=True)

    thread = threading.Thread(target=touch)
    thread.start()
    events = files.watch(
        "/job/seen",
        recursive=True,
        filter=[FileWatchEventType.Create, FileWatchEventType.Remove],
        timeout=PATIENCE,
    )
    seen = set()
    for event in events:
        seen.add((event.type, *event.paths))
        if {kind for kind, path in seen if path == "/job/seen/new"} == {
            FileWatchEventType.Create,
            FileWatchEventType.Remove,
        }:
            break
    touching.set()
    thread.join()
    assert {kind for kind, _ in seen} <= {FileWatchEventType.Create, FileWatchEventType.Remove}
    assert list(files.watch("/job/seen", timeout=1)) == []
    with pytest.raises(SandboxFilesystemNotFoundError):
        next(iter(files.watch("/job/missing")))
