"""Which files of the source root go to a sandbox, and a still copy of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from modalrun.errors import UsageError

NEVER = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".zen",
        ".venv",
        "venv",
        ".nox",
        ".tox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        ".ipynb_checkpoints",
        ".idea",
        ".vscode",
        "__pycache__",
        "node_modules",
    }
)
"""Folders that no pipeline imports from and that are large, private or made for this machine."""

MAX_BYTES = 500_000_000
"""Above this a source root is taken for a mistake: it holds data, or it is the home folder."""


def source_files(root: Path) -> list[Path]:
    """The files of a source tree that a sandbox gets, relative to `root` and sorted.

    In a Git work tree these are the files that Git tracks or would track (`.gitignore` counts);
    elsewhere all files but those in `NEVER` and in virtual environments.

    Raises:
        UsageError: The files are larger than `MAX_BYTES` together.
    """
    listed = _git_files(root)
    candidates = _walk(root) if listed is None else (p for p in listed if not NEVER & set(p.parts))
    files = sorted({p for p in candidates if (root / p).is_file()})
    size = sum((root / p).stat().st_size for p in files)
    if size > MAX_BYTES:
        largest = max(files, key=lambda p: (root / p).stat().st_size)
        raise UsageError(
            f"The source root {root} holds {size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB"
            f" go to a sandbox. The largest file is {largest}.",
            hint="Set 'source_root:' to the folder with the code, or list data in .gitignore.",
        )
    return files


def stage(root: Path, folder: Path) -> int:
    """Copy the files of a source tree to `folder`, so that edits during a submission do no harm.

    Returns:
        The number of files.

    Raises:
        UsageError: There is nothing to copy, or it is too large.
    """
    files = source_files(root)
    if not files:
        raise UsageError(f"The source root {root} holds no files.")
    for relative in files:
        destination = folder / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / relative, destination)
    return len(files)


def _git_files(root: Path) -> list[Path] | None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        result = subprocess.run(command, cwd=root, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if result.returncode != 0:
        return None
    # An ignored folder inside a repository lists nothing: it is a tree of its own.
    return [Path(os.fsdecode(name)) for name in result.stdout.split(b"\0") if name] or None


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in NEVER and not (here / name / "pyvenv.cfg").is_file()
        ]
        yield from ((here / name).relative_to(root) for name in files)
