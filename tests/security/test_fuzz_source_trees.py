"""Random source trees, with links of every kind: nothing from outside and no credential goes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.submit.source.tree import SourceSelection

NAMES = ("a", "b", "c.py", ".env", ".git", ".ssh", "k.pem", ".gitignore")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
targets = st.sampled_from(
    [
        "..",
        ".",
        "../../outside/x",
        "../outside",
        "/proc/self",
        "/etc/hostname",
        "absent",
        "b",
        "a/b",
    ]
) | paths.map(lambda path: f"../{path}")
entries = st.lists(
    st.tuples(paths, st.sampled_from(["file", "folder", "link", "pipe", "ignore"]), targets),
    min_size=1,
    max_size=12,
)


def build(root: Path, made: list[tuple[str, str, str]]) -> None:
    for name, kind, target in made:
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path) or not path.parent.resolve().is_relative_to(root):
                continue
            if kind == "folder":
                path.mkdir()
            elif kind == "link":
                path.symlink_to(target)
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                secret = {".ssh", ".git"} & {*path.parts} or path.name in {".env", "k.pem"}
                text = f"!{target}\n" if kind == "ignore" else "secret" if secret else "ours"
                path.write_text(text)
        except OSError:
            continue


@pytest.fixture(autouse=True)
def _no_surrounding_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path(tempfile.gettempdir()).resolve()))


def check(made: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        root = folder / "project" / "code"
        root.mkdir(parents=True)
        for outside in (folder / "outside", folder / "project" / "outside"):
            outside.mkdir()
            (outside / "x").write_text("secret")
        build(root, made)
        try:
            stage(select(SourceSelection(root)), folder / "copy")
        except UsageError as error:
            assert error.message
            return
        for path in (folder / "copy").rglob("*"):
            assert not path.is_symlink()
            if path.is_file():
                assert "secret" not in path.read_text()


@settings(deadline=None, max_examples=50)
@given(entries)
def test_random_trees(made: list[tuple[str, str, str]]) -> None:
    check(made)


@pytest.mark.exhaustive
@settings(deadline=None, max_examples=500)
@given(entries)
def test_many_random_trees(made: list[tuple[str, str, str]]) -> None:
    check(made)
