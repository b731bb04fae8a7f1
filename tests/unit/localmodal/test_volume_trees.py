"""What sandboxes see of each other's changes in a volume."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from modalrun.localmodal.storage import tree as trees
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.tree import Tree
from modalrun.localmodal.storage.volume_trees import Mount, VolumeTree, commit_left

Open = Callable[..., VolumeTree]


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir(tmp_path / "state")
    folder.create()
    (folder.volumes / "vo-1").mkdir()
    return folder


@pytest.fixture
def volume(state: StateDir) -> Path:
    return state.volumes / "vo-1"


@pytest.fixture
def sandbox(state: StateDir) -> Open:
    """Start a sandbox that mounts the volume."""

    def start(number: int = 1, **options: object) -> VolumeTree:
        mount = Mount("vo-1", "/v", **options)  # type: ignore[arg-type]
        tree = VolumeTree(state, mount, state.sandbox(f"sb-{number}") / "volumes" / "vo-1")
        tree.open()
        return tree

    return start


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def test_a_commit_is_seen_after_a_reload(volume: Path, sandbox: Open) -> None:
    (volume / "old").write_text("1")
    (volume / "gone").write_text("1")
    a, b = sandbox(1), sandbox(2)
    (a.folder / "old").write_text("2")
    (a.folder / "gone").unlink()
    (a.folder / "d" / "e").mkdir(parents=True)
    (a.folder / "d" / "new").write_text("n")
    (b.folder / "own").write_text("b")
    assert content(volume) == {"gone": "1", "old": "1"}
    a.commit()
    changed = {"d": "", "d/e": "", "d/new": "n", "old": "2"}
    assert content(volume) == changed
    assert content(b.folder) == {"gone": "1", "old": "1", "own": "b"}
    b.reload()
    assert content(b.folder) == content(volume) == {**changed, "own": "b"}
    assert content(sandbox(3).folder) == content(volume)
    a.commit()
    assert content(volume) == {**changed, "own": "b"}


def test_the_last_one_wins_for_each_file(volume: Path, sandbox: Open) -> None:
    for name in ("x", "y", "z"):
        (volume / name).write_text("0")
    a, b = sandbox(1), sandbox(2)
    (a.folder / "x").write_text("a")
    (a.folder / "y").write_text("a")
    (b.folder / "x").unlink()
    (b.folder / "z").write_text("b")
    a.commit(last=True)
    b.commit(last=True)
    assert content(volume) == {"y": "a", "z": "b"}


def test_a_file_becomes_a_folder_and_back(volume: Path, sandbox: Open) -> None:
    (volume / "x").write_text("1")
    (volume / "d").mkdir()
    (volume / "d" / "inner").write_text("1")
    a, b = sandbox(1), sandbox(2)
    (a.folder / "x").unlink()
    (a.folder / "x").mkdir()
    (a.folder / "x" / "inner").write_text("2")
    (a.folder / "d" / "inner").unlink()
    (a.folder / "d").rmdir()
    (a.folder / "d").write_text("2")
    (b.folder / "d" / "inner").write_text("of b")
    a.commit()
    assert content(volume) == {"d": "2", "x": "", "x/inner": "2"}
    b.commit()
    assert content(volume) == {"d": "", "d/inner": "of b", "x": "", "x/inner": "2"}
    a.reload()
    assert content(a.folder) == content(volume)


def test_a_change_right_after_a_commit(volume: Path, sandbox: Open) -> None:
    a = sandbox()
    for text in "123456789":
        (a.folder / "x").write_text(text)
        a.commit()
        assert content(volume) == {"x": text}


def test_a_reload_leaves_open_files_alone(volume: Path, sandbox: Open) -> None:
    a = sandbox()
    with (a.folder / "log").open("w") as log:
        for line in ("one", "two", "three"):
            log.write(line)
            log.flush()
            a.reload()
    a.commit(last=True)
    assert content(volume) == {"log": "onetwothree"}


def test_modes_times_and_links(volume: Path, sandbox: Open) -> None:
    a = sandbox()
    program = a.folder / "program"
    program.write_text("x")
    program.chmod(0o750)
    os.utime(program, ns=(0, 5_000_000_000))
    (a.folder / "link").symlink_to("program")
    a.commit()
    for folder in (volume, sandbox(2).folder):
        status = (folder / "program").stat()
        assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o750, 5_000_000_000)
        assert (folder / "link").readlink() == Path("program")
    program.chmod(0o700)
    a.commit()
    assert (volume / "program").stat().st_mode & 0o777 == 0o700


def test_large_files_are_not_copied(
    volume: Path, sandbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "_COPIED", 10)
    monkeypatch.setattr(trees, "_clone", lambda source, target: False)
    (volume / "small").write_text("123")
    (volume / "large").write_text("12345678")
    a, b = sandbox(1), sandbox(2)
    assert (a.folder / "large").samefile(volume / "large")
    assert not (a.folder / "small").samefile(volume / "small")
    new = a.folder / "new"
    new.write_text("replaced")
    new.replace(a.folder / "large")
    assert content(volume)["large"] == content(b.folder)["large"] == "12345678"
    (a.folder / "huge").write_text("h" * 20)
    a.commit(last=True)
    assert content(volume) == {"huge": "h" * 20, "large": "replaced", "small": "123"}
    b.reload()
    assert content(b.folder) == content(volume)


def test_a_large_file_that_is_changed_in_place(
    volume: Path, sandbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a sandbox has committed is its own from then on; a shared file is told of."""
    monkeypatch.setattr(trees, "_COPIED", 0)
    monkeypatch.setattr(trees, "_clone", lambda source, target: False)
    (volume / "old").write_text("1")
    a = sandbox()
    (a.folder / "new").write_text("1")
    a.commit()
    (a.folder / "new").write_text("not committed")
    assert content(volume) == {"new": "1", "old": "1"}
    (a.folder / "old").write_text("22")
    a.commit()
    assert a.changed_at_once == {"/v/old"}
    (a.folder / "old").write_text("not committed")
    assert content(volume) == {"new": "not committed", "old": "22"}


def test_read_only_and_a_part(volume: Path, sandbox: Open) -> None:
    (volume / "part").mkdir()
    (volume / "part" / "x").write_text("1")
    reader, part = sandbox(1, read_only=True), sandbox(2, sub_path="part")
    (reader.folder / "part" / "x").write_text("2")
    (part.folder / "y").write_text("2")
    assert content(part.folder) == {"x": "1", "y": "2"}
    reader.commit(last=True)
    part.commit(last=True)
    assert content(volume) == {"part": "", "part/x": "1", "part/y": "2"}


@pytest.fixture
def of_a_user() -> Iterator[StateDir]:
    """A state folder of a user who is not root, as who the test goes on."""
    user = os.geteuid() or 65534
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            state = StateDir(Path(folder) / "state")
            state.create()
            yield state
        finally:
            os.seteuid(before)


@pytest.mark.skipif(sys.platform != "linux", reason="sandboxes have a root of their own on Linux")
def test_rights_that_a_sandbox_has_taken_from_its_user(of_a_user: StateDir) -> None:
    """On Modal a sandbox is root's, and keeps nothing from the volume."""
    volume = of_a_user.volumes / "vo-1"
    (volume / "d").mkdir(parents=True)
    (volume / "d" / "x").write_text("1")

    def start(number: int) -> VolumeTree:
        folder = of_a_user.sandbox(f"sb-{number}") / "volumes" / "vo-1"
        tree = VolumeTree(of_a_user, Mount("vo-1", "/v"), folder)
        tree.open()
        return tree

    a = start(1)
    for text, commit in (("2", a.commit), ("3", a.reload), ("4", lambda: a.commit(last=True))):
        with suppress(FileNotFoundError):
            (a.folder / "new").chmod(0o600)
        for path in (a.folder / "new", a.folder / "d" / "x"):
            path.write_text(text)
            path.chmod(0o200)
        (a.folder / "d").chmod(0o500)
        a.folder.chmod(0)
        commit()
        assert (volume / "new").stat().st_mode & 0o700 == 0o600
        assert content(start(int(text)).folder) == {"d": "", "d/x": text, "new": text}


def test_other_mounts_stay_out(volume: Path, sandbox: Open, tmp_path: Path) -> None:
    a = sandbox(nested=("deep/sub", "other"))
    (a.folder / "deep" / "sub").rmdir()
    (a.folder / "deep" / "sub").symlink_to(tmp_path)
    (a.folder / "other" / "x").write_text("of the other volume")
    (a.folder / "own").write_text("1")
    a.reload()
    a.commit(last=True)
    assert content(volume) == {"own": "1"}


def test_links_lead_nowhere(volume: Path, sandbox: Open, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private").write_text("1")
    (volume / "d").mkdir()
    (volume / "d" / "private").write_text("0")
    a = sandbox()
    (volume / "d" / "new").write_text("0")
    (a.folder / "d" / "private").unlink()
    (a.folder / "d").rmdir()
    (a.folder / "d").symlink_to(outside)
    os.mkfifo(a.folder / "pipe")
    a.commit()
    assert (volume / "d").readlink() == outside
    assert not (volume / "pipe").exists()
    (volume / "d").unlink()
    (volume / "d").mkdir()
    (volume / "d" / "private").write_text("2")
    a.reload()
    assert content(outside) == {"private": "1"}
    assert content(a.folder / "d") == {"private": "2"}


def test_a_link_above_a_mounted_part(volume: Path, sandbox: Open, tmp_path: Path) -> None:
    """Another sandbox may put it where a folder of the volume was."""
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    (outside / "b" / "private").write_text("1")
    (volume / "a" / "b").mkdir(parents=True)
    part, whole = sandbox(1, sub_path="a/b"), sandbox(2)
    (whole.folder / "a" / "b").rmdir()
    (whole.folder / "a").rmdir()
    (whole.folder / "a").symlink_to(outside)
    whole.commit()
    assert (volume / "a").readlink() == outside
    (part.folder / "own").write_text("2")
    part.reload()
    part.commit(last=True)
    assert content(part.folder) == {"own": "2"}
    assert content(outside) == {"b": "", "b/private": "1"}


def test_a_swap_during_a_commit(state: StateDir, volume: Path, sandbox: Open) -> None:
    """Another process may replace a folder by a link between looking and copying."""
    secret = state.root / "sandboxes" / "secret"
    secret.mkdir()
    (secret / "x").write_text("secret")
    a = sandbox()
    (a.folder / "d").mkdir()
    (a.folder / "d" / "x").write_text("1")
    own = Tree(a.folder, state.uploads)
    items, _ = trees.changes(own.scan(), {})
    (a.folder / "d" / "x").unlink()
    (a.folder / "d").rmdir()
    (a.folder / "d").symlink_to(secret)
    Tree(volume, state.uploads).bring(own, items)
    assert "secret" not in content(volume).values()


def test_what_a_killed_server_left(state: StateDir, volume: Path, sandbox: Open) -> None:
    (volume / "x").write_text("1")
    (volume / "gone").write_text("1")
    a, b, deleted = sandbox(1), sandbox(2, nested=("n",)), sandbox(3)
    (a.folder / "x").write_text("2")
    (a.folder / "gone").unlink()
    (b.folder / "y").write_text("2")
    deleted.folder.with_suffix(".json").write_text("{")
    commit_left(state)
    assert content(volume) == {"x": "2", "y": "2"}


def test_a_deleted_volume(volume: Path, sandbox: Open) -> None:
    a = sandbox()
    (a.folder / "x").write_text("1")
    volume.rmdir()
    a.reload()
    a.commit(last=True)
    assert not volume.exists()
    assert content(a.folder) == {"x": "1"}


def test_nothing_is_left_in_between(state: StateDir, volume: Path, sandbox: Open) -> None:
    (volume / "x").write_text("1")
    a = sandbox()
    (a.folder / "x").write_text("2")
    a.reload()
    a.commit(last=True)
    assert list(state.uploads.iterdir()) == []
