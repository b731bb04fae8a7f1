"""Listing the files of somebody's repository runs none of the programs that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.source_trees import git, names, selected

pytestmark = pytest.mark.usefixtures("no_surrounding_repository")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q")
    (root / "a.py").write_text("x")
    return root


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Leaves a mark when it runs."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 0\n")
    path.chmod(0o755)
    return path


def arm(repository: Path, program: Path, *, folder: str = ".git") -> None:
    """Let every kind of configuration of a repository name the program."""
    hooks = repository / folder / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (hooks / hook).write_text(program.read_text())
        (hooks / hook).chmod(0o755)
    with (repository / folder / "config").open("a") as config:
        config.write(
            f"[core]\n fsmonitor = {program}\n pager = {program}\n sshCommand = {program}\n"
            f" editor = {program}\n gitProxy = {program}\n"
            f'[filter "x"]\n clean = {program}\n process = {program}\n'
            f"[pager]\n ls-files = {program}\n[alias]\n ls-files = !{program}\n"
            f'[remote "origin"]\n url = ext::{program}\n promisor = true\n'
            '[extensions]\n partialClone = origin\n[protocol "ext"]\n allow = always\n'
        )
    (repository / ".gitattributes").write_text("* filter=x\n")


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "b.py").write_text("x")
    git(folder, "add", ".")
    return folder


def test_a_repository(root: Path, program: Path, tmp_path: Path) -> None:
    (root / ".gitignore").write_text("*.bin\n")
    (root / "x.bin").write_text("x")
    git(root, "add", "a.py")
    git(root, "commit", "-qm", "x")
    arm(root, program)
    # The index is out of date.
    (root / "a.py").write_text("other")
    assert "a.py" in names(selected(root))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("linked", [False, True])
def test_a_repository_inside(root: Path, program: Path, tmp_path: Path, linked: bool) -> None:
    inner = repository(root / "vendor")
    arm(inner, program)
    if linked:
        (root / "link").symlink_to("vendor")
    assert "vendor/b.py" in names(selected(root))
    assert not (tmp_path / "ran").exists()


def test_a_submodule(root: Path, program: Path, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    git(other, "commit", "-qm", "x")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "lib")
    arm(root / ".git" / "modules", program, folder="lib")
    assert "lib/b.py" in names(selected(root))
    assert not (tmp_path / "ran").exists()


def test_a_git_file_that_points_elsewhere(root: Path, program: Path, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    arm(other, program)
    inner = root / "vendor"
    inner.mkdir()
    (inner / "c.py").write_text("x")
    (inner / ".git").write_text(f"gitdir: {other}/.git\n")
    assert "vendor/c.py" in names(selected(root))
    assert "c.py" in names(selected(inner))
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_looks_like_a_repository(root: Path, program: Path, tmp_path: Path) -> None:
    """Git tracks such a folder as ordinary files."""
    bare = root / "bare"
    bare.mkdir()
    git(bare, "init", "-q", "--bare")
    arm(bare, program, folder=".")
    with (bare / "config").open("a") as config:
        config.write("[core]\n bare = false\n worktree = .\n")
    (bare / "b.py").write_text("x")
    assert "bare/b.py" in names(selected(root))
    assert "b.py" in names(selected(bare))
    assert not (tmp_path / "ran").exists()


def test_an_index_made_by_hand_lists_nothing_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (root / "xx").mkdir()
    (root / "xx" / "outside").write_text("x")
    git(root, "add", ".")
    index = root / ".git" / "index"
    changed = index.read_bytes()[:-20].replace(b"xx/outside", b"../outside"[:10])
    import hashlib

    index.write_bytes(changed + hashlib.sha1(changed).digest())
    assert not [name for name in names(selected(root)) if ".." in name]
