"""Make source trees in tests, and select their files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection, SourceTree


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def selected(root: Path, *include: str) -> SourceTree:
    return select(SourceSelection(root, include=include))


def names(tree: SourceTree) -> list[str]:
    return [file.path.as_posix() for file in tree.files]
