"""What is left of an upload that breaks off: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.http import Request
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.storage.disk import Disk
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import Store
from modalrun.localmodal.storage.tree import Tree


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir(tmp_path / "state")
    folder.create()
    return folder


def test_a_blob_whose_client_disconnects(state: StateDir) -> None:
    store, guard = Store(state.database), Guard()
    mounts = Mounts(state, store, guard, Disk(state.root))

    async def body() -> AsyncIterator[bytes]:
        yield b"the first part"
        raise ConnectionResetError

    path = f"/blob/bl-1/{guard.sign('bl-1')}"
    with pytest.raises(ConnectionResetError):
        asyncio.run(mounts.put_blob(Request("PUT", path, {}, body())))
    store.close()
    assert list(state.uploads.iterdir()) == []


def test_a_file_of_a_volume_whose_content_cannot_be_read(state: StateDir) -> None:
    (state.volumes / "vo-1").mkdir()
    there = state.blobs / "there"
    there.write_text("content")
    tree = Tree(state.volumes / "vo-1", state.uploads)
    with pytest.raises(FileNotFoundError):
        tree.put([(0, there), (7, state.blobs / "missing")], 14, 0, "a")
    assert list(state.uploads.iterdir()) == list((state.volumes / "vo-1").iterdir()) == []
