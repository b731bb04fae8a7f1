"""Select the files of the source root that go to a sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.errors import UsageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NEVER = (
    frozenset({".git", ".hg", ".svn", ".zen", ".venv", "venv", ".nox", ".tox", ".idea", ".vscode"})
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"}
    | {"__pycache__", "node_modules"}
)
"""Folders that no pipeline imports from and that are large, private or made for this machine."""

_GIT_REPOSITORY = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"})

MAX_BYTES = 500_000_000
"""A larger source root is an error: it holds data, or it is the home folder."""


def source_files(
    root: Path, *, dockerignore: str | None = None, bounded: bool = True
) -> list[Path]:
    """List the files of a source tree that a sandbox gets, relative to `root` and sorted.

    In a Git work tree these are the files that Git tracks or would track; elsewhere all files that
    no `.gitignore` excludes. `.dockerignore`, `NEVER` and virtual environments exclude more.

    Args:
        root: The source root.
        dockerignore: The file to read instead of `.dockerignore`, relative to `root`.
        bounded: Whether more than `MAX_BYTES` are an error.

    Raises:
        UsageError: The files are too large, or the .dockerignore file is missing or invalid.
    """
    ignored = _dockerignore(root, dockerignore)
    files = sorted(
        {p for p in _tree(root, (root.resolve(),)) if (root / p).is_file() and not ignored(p)}
    )
    size = sum((root / p).stat().st_size for p in files)
    if bounded and size > MAX_BYTES:
        largest = max(files, key=lambda p: (root / p).stat().st_size)
        raise UsageError(
            f"The source root {root} holds {size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB"
            f" go to a sandbox. The largest file is {largest}.",
            hint="Set 'source_root:' to the folder with the code, or list data in .gitignore or"
            " .dockerignore.",
        )
    return files


def _dockerignore(root: Path, name: str | None) -> Callable[[Path], bool]:
    """Return a function that is true for the paths that the .dockerignore file excludes."""
    path = root / (name or ".dockerignore")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if name is None:
            return lambda _: False
        raise UsageError(
            f"There is no file {path}, which 'dockerignore' in the Docker settings names."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file {path} can't be read: {error}.") from error
    # The matcher is the SDK's, which takes 0.7 s to import.
    from modalrun.modal_api.images import ignore_matcher

    return ignore_matcher(lines, str(path))


def _tree(root: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """List a tree's entries relative to `root`; `above` has the real paths of the folders passed.

    A link to one of those is not followed.
    """
    listed = _git_files(root)
    entries = _walk(root) if listed is None else (p for p in listed if not NEVER & set(p.parts))
    for entry in entries:
        folder = root / entry
        if not folder.is_dir():
            yield entry
            continue
        # A submodule, a nested repository or a link to a folder is a tree of its own.
        real = folder.resolve()
        if not any(one.is_relative_to(real) for one in above) and not _is_environment(folder):
            yield from (entry / inner for inner in _tree(folder, (*above, real)))


def _is_environment(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").is_file()


def _git_files(root: Path) -> list[Path] | None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    # Inside a Git hook, Git's own variables name the hook's repository, not this one.
    environment = {k: v for k, v in os.environ.items() if k not in _GIT_REPOSITORY}
    try:
        result = subprocess.run(  # noqa: S603 (git, with arguments of ours)
            command, cwd=root, env=environment, capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if result.returncode != 0:
        return None
    # Git lists nothing in an ignored folder of a repository: that is a tree of its own.
    return [Path(os.fsdecode(name)) for name in result.stdout.split(b"\0") if name] or None


def _walk(root: Path) -> Iterator[Path]:
    """List the files below a folder outside of Git work trees; read `.gitignore` as Git does."""
    # For each folder, its own and its parents' rules, the root's first.
    rules: dict[Path, list[tuple[Path, GitIgnoreSpec]]] = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        inherited = rules.get(here.parent, []) if here != root else []
        rules[here] = inherited + _gitignore(here)
        folders[:] = [
            name
            for name in folders
            if name not in NEVER
            and not _is_environment(here / name)
            and not _is_ignored(here / name, "/", rules[here])
        ]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*files, *links]:
            if not _is_ignored(here / name, "", rules[here]):
                yield (here / name).relative_to(root)


def _gitignore(folder: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    try:
        lines = (folder / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    from pathspec import GitIgnoreSpec

    # For pathspec 1.1, "a/**" also matches the folder a itself; for Git only its content.
    lines = [f"{line.rstrip()}/*" if line.rstrip().endswith("/**") else line for line in lines]
    return [(folder, GitIgnoreSpec.from_lines(lines))]


def _is_ignored(path: Path, slash: str, rules: list[tuple[Path, GitIgnoreSpec]]) -> bool:
    """Return whether Git ignores a path: the nearest `.gitignore` that matches decides.

    As in gitignore(5), nothing inside an ignored folder can be included again.
    """
    for folder, spec in reversed(rules):
        text = f"{path.relative_to(folder).as_posix()}{slash}"
        for pattern in reversed(list(spec.patterns)):
            found = pattern.match_file(text)
            # pathspec also matches paths below a folder; here each path is matched on its own.
            if found is not None and found.match.end() == len(text):
                return bool(pattern.include)
    return False
