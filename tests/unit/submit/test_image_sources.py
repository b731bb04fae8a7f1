"""What .dockerignore and .gitignore keep out of a sandbox."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.util.ignore_files import dockerignore_matcher


@pytest.fixture(autouse=True)
def _no_surrounding_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


def make(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def listed(root: Path, dockerignore: str | None = None) -> list[str]:
    return [file.path.as_posix() for file in select(SourceSelection(root, dockerignore)).files]


def ignored(*lines: str) -> list[str]:
    matcher = dockerignore_matcher(lines, "a file")
    names = ("a.py", "b.txt", "sub/a.py", "sub/b.txt", "sub/deep/a.py", "#c", "sub")
    return [name for name in names if matcher(Path(name))]


# https://docs.docker.com/build/concepts/context/#dockerignore-files
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["# a.py", "", "  "], []),
        (["a.py"], ["a.py"]),
        (["/a.py"], ["a.py"]),
        (["./a.py"], ["a.py"]),
        (["*.py"], ["a.py"]),
        (["*/*.py"], ["sub/a.py"]),
        (["**/*.py"], ["a.py", "sub/a.py", "sub/deep/a.py"]),
        (["sub"], ["sub/a.py", "sub/b.txt", "sub/deep/a.py", "sub"]),
        (["sub/"], ["sub/a.py", "sub/b.txt", "sub/deep/a.py", "sub"]),
        (["**/deep"], ["sub/deep/a.py"]),
        (["sub", "!sub/a.py"], ["sub/b.txt", "sub/deep/a.py", "sub"]),
        (["sub", "!/sub/a.py"], ["sub/b.txt", "sub/deep/a.py", "sub"]),
        (["*", "!sub"], ["a.py", "b.txt", "#c"]),
        (["!sub", "*"], ["a.py", "b.txt", "sub/a.py", "sub/b.txt", "sub/deep/a.py", "#c", "sub"]),
        (["[ab].?y"], ["a.py"]),
        (["b.txt  "], ["b.txt"]),
    ],
)
def test_dockerignore_patterns(lines: list[str], expected: list[str]) -> None:
    assert ignored(*lines) == expected


def test_a_byte_order_mark_is_no_part_of_the_first_pattern(tmp_path: Path) -> None:
    make(tmp_path, {"data": "", "a.py": "", ".dockerignore": "\ufeffdata\n.dockerignore\n"})
    assert listed(tmp_path) == ["a.py"]


def test_dockerignore_that_is_not_one() -> None:
    with pytest.raises(UsageError, match=r"a file.*a\[\.py"):
        dockerignore_matcher(["a[.py"], "a file")


@pytest.mark.parametrize("in_git", [False, True])
def test_both_ignore_files_count(tmp_path: Path, in_git: bool) -> None:
    make(
        tmp_path,
        {
            "a.py": "",
            "data/x.csv": "",
            "secret.env": "",
            "sub/keep.log": "",
            "sub/drop.log": "",
            ".gitignore": "*.env\n*.log\n",
            "sub/.gitignore": "!keep.log\n",
            ".dockerignore": "# data stays here\ndata\n**/.gitignore\n.dockerignore\n",
        },
    )
    if in_git:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert listed(tmp_path) == ["a.py", "sub/keep.log"]


def test_another_dockerignore(tmp_path: Path) -> None:
    make(tmp_path, {"a.py": "", "b.py": "", "mine": "b.py\nmine\n", ".dockerignore": "a.py\n"})
    assert listed(tmp_path, "mine") == [".dockerignore", "a.py"]
    with pytest.raises(UsageError, match="absent"):
        listed(tmp_path, "absent")


def test_everything_ignored(tmp_path: Path) -> None:
    make(tmp_path, {"a.py": "", ".dockerignore": "*\n"})
    with pytest.raises(UsageError) as caught:
        select(SourceSelection(tmp_path)).check()
    assert ".dockerignore" in str(caught.value.hint)


_NAMES = st.sampled_from(["a", "b", "c.py", "d"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_RULES = st.sampled_from(
    ["a", "b/", "*.py", "!c.py", "/d", "a/b", "**/c.py", "!a/**", "a/*", "!/b", "d/**/c.py", "?"]
)


@settings(max_examples=40, deadline=None)
@given(
    paths=st.sets(_PATHS, min_size=1, max_size=8),
    rules=st.lists(_RULES, max_size=4),
    nested=st.dictionaries(_NAMES, st.lists(_RULES, max_size=3), max_size=2),
)
def test_gitignore_without_git_is_read_as_git_does(
    paths: set[str], rules: list[str], nested: dict[str, list[str]]
) -> None:
    # A path that is a folder of another one can't be a file.
    files = {p for p in paths if not any(other.startswith(f"{p}/") for other in paths)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        make(root, dict.fromkeys(files, ""))
        make(root, {".gitignore": "\n".join(rules)})
        for name, inner in nested.items():
            if (root / name).is_dir():
                make(root, {f"{name}/.gitignore": "\n".join(inner)})
        without = listed(root)
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        assert listed(root) == without
