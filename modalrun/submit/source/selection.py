"""Select the files of the source root that go to a sandbox."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.submit.source import git_files
from modalrun.submit.source.git_files import GitError
from modalrun.submit.source.root import check_root
from modalrun.submit.source.tree import (
    SourceFile,
    SourceSelection,
    SourceTree,
    shown,
)
from modalrun.util.credentials import (
    CONTENT_BYTES,
    DEPLOYMENT_FILE,
    credential_content,
    credential_reason,
    described,
    is_source_code,
)
from modalrun.util.ignore_files import dockerignore_matcher
from modalrun.util.regular_files import open_inside, open_regular
from modalrun.util.text import listing

NEVER = (
    frozenset({".git", ".hg", ".svn", ".zen", ".venv", "venv", ".nox", ".tox", ".idea", ".vscode"})
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"}
    | {"__pycache__", "node_modules"}
)
"""Folders that no pipeline imports from and that are large, private or made for this machine."""

_REPORT = re.compile(r"report-[0-9a-f]{8}\.html")
"""The pages that `modalrun report` writes. An untracked one would be new source to each run."""

MAX_LINKED_FOLDERS = 1_000
"""Links to folders that are followed. They can lead to one another in very many ways."""


def select(selection: SourceSelection) -> SourceTree:
    """Select the files of a source tree that a sandbox gets.

    In a Git work tree these are the files that Git tracks or would track; elsewhere all files that
    no `.gitignore` excludes. `.dockerignore`, `NEVER` and virtual environments exclude more, and a
    credential file goes only if Git tracks it or `include` names it.

    Raises:
        UsageError: The source root is a private folder; a path of `include` is not below it; Git
            can't be asked about a repository; or the .dockerignore file is missing or invalid.
    """
    check_root(selection.root)
    return _Selecting(selection).tree()


class _Selecting:
    """Select the files of one source tree."""

    def __init__(self, selection: SourceSelection) -> None:
        self._selection = selection
        self._root = selection.root
        self._real_root = selection.root.resolve()
        self._dockerignored = _dockerignore(selection.root, selection.dockerignore)
        self._folders: dict[Path, Path] = {}
        self._followed = 0
        self._tree = SourceTree(selection, self._real_root)
        self._ignored: set[Path] = set()
        self._output = set(_own_output())
        included = [self._included(name) for name in selection.include]
        self._named = [path for path in included if self._may_be_named(path)]

    def tree(self) -> SourceTree:
        tracked: dict[Path, bool] = {}
        for path, is_tracked in self._entries(Path(), (self._real_root,), ask_git=True):
            tracked[path] = tracked.get(path, False) or is_tracked
        for name in self._named:
            if (self._root / name).is_dir():
                for path in self._walked(name):
                    tracked.setdefault(path, False)
            else:
                tracked.setdefault(name, False)
        # Git lists their files, unless it ignores them.
        found = {path.parent for path in tracked if path.name == "pyvenv.cfg"}
        environments = found - {Path(), *self._named}
        self._tree.left_out.update(dict.fromkeys(environments, "virtual environment"))
        for path in sorted(tracked):
            if path in self._named or environments.isdisjoint(path.parents):
                self._add(path, tracked)
        self._sum_up()
        self._tree.notes += credential_notes(self._tree.files)
        return self._tree

    def _add(self, path: Path, tracked: dict[Path, bool]) -> None:
        """Add a file to those that go, or to what is left out."""
        if not _is_utf8(path):
            self._tree.notes.append(f"the file {shown(path)} is left out: its name is not UTF-8")
            return
        if (rule := self._rule(path)) is not None:
            self._leave_out(path, rule)
            return
        self._ignored.discard(path)
        if _REPORT.fullmatch(path.name) and not (tracked[path] or self._is_named(path)):
            self._tree.left_out[path] = "a page of 'modalrun report'"
            return
        real = self._real(path)
        if real is None:
            return
        try:
            found = (self._real_root / real).lstat()
        except OSError:
            # It was deleted meanwhile.
            return
        reason = self._credential(path, real)
        if (found.st_dev, found.st_ino) in self._output and not (
            tracked[path] or self._is_named(path)
        ):
            # It grows, so that it would keep the run from `resume` and `rerun`.
            self._tree.left_out[path] = "this command's own output"
        elif not stat.S_ISREG(found.st_mode):
            self._tree.left_out[path] = "no regular file"
        elif real != path and (never := _never(real)):
            self._tree.left_out[path] = never
        elif reason is None or tracked.get(real, False) or self._may_go(real):
            file = SourceFile(path, real, found.st_size, tracked[path], reason)
            self._tree.files.append(file)
            self._tree.left_out.pop(path, None)
        else:
            self._tree.credentials += reason != DEPLOYMENT_FILE
            self._tree.left_out[path] = described(reason)

    def _sum_up(self) -> None:
        """Count what is ignored, and say so where a part of an ignored folder goes."""
        left_out = self._tree.left_out
        for path in self._tree.leaving:
            left_out.pop(path, None)
        if self._named:
            for name in self._ignored.intersection(self._named):
                left_out.pop(name, None)
            above = {folder for file in self._tree.files for folder in file.path.parents}
            for path in above & left_out.keys():
                left_out[path] += ", but for the files that go"
        ignored = self._ignored & left_out.keys()
        folders = sum((self._root / path).is_dir() for path in ignored)
        self._tree.ignored_folders = folders
        self._tree.ignored_files = len(ignored) - folders

    def _rule(self, path: Path) -> str | None:
        """Return the rule by which a path is left out, whatever it is."""
        if path in self._named:
            return None
        if never := _never(path):
            return never
        if self._dockerignored(path) and not self._is_named(path):
            return self._selection.dockerignore or ".dockerignore"
        return None

    def _is_named(self, path: Path) -> bool:
        """Whether `include` names a path, or a folder that it is in."""
        return any(map(path.is_relative_to, self._named))

    def _may_be_named(self, path: Path) -> bool:
        """Whether a path of `include` is there and counts: only the user names what never goes."""
        if not os.path.lexists(self._root / path):
            return False
        if self._selection.may_include_credentials:
            return True
        real = Path(os.path.realpath(self._root / path))
        places = [self._real_root / path] + [real] * real.is_relative_to(self._real_root)
        for place in places:
            for part in (place, *place.parents):
                if part == self._real_root:
                    break
                if rule := self._skipped(part):
                    self._tree.left_out[path] = rule
                    return False
        return True

    def _may_go(self, real: Path) -> bool:
        return self._selection.may_include_credentials and real in self._named

    def _credential(self, path: Path, real: Path) -> str | None:
        if reason := credential_reason(path) or credential_reason(real):
            return reason
        if is_source_code(real):
            return None
        try:
            with open_inside(self._real_root, real) as file:
                return credential_content(file.read(CONTENT_BYTES))
        except OSError:
            # Whoever copies it says so.
            return None

    def _real(self, path: Path) -> Path | None:
        """Return a path below the root without links.

        Returns:
            None if there is nothing, or a link leads to nothing or out of the source root.
        """
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = (self._root / path.parent).resolve()
        real = folder / path.name
        try:
            if stat.S_ISLNK(real.lstat().st_mode):
                real = real.resolve(strict=True)
        except (OSError, RuntimeError):
            if real.is_symlink():
                self._tree.left_out[path] = "a link to nothing"
            return None
        if not real.is_relative_to(self._real_root):
            self._tree.leaving[path] = real
            return None
        return real.relative_to(self._real_root)

    def _entries(
        self, folder: Path, above: tuple[Path, ...], *, ask_git: bool
    ) -> Iterator[tuple[Path, bool]]:
        """List a folder's files, each with whether Git tracks it.

        `above` has the real paths of the folders passed; a link to one of them is not followed.
        """
        for entry, tracked in self._listed(folder, ask_git):
            whole = self._root / entry
            if not whole.is_dir():
                yield entry, tracked
                continue
            # A submodule, a nested repository or a link to a folder is a tree of its own.
            rule = self._skipped(whole) or self._rule(entry)
            if rule is not None:
                self._leave_out(entry, rule)
                continue
            real = self._real(entry)
            if real is None or any(one.is_relative_to(self._real_root / real) for one in above):
                continue
            if never := _never(real):
                self._tree.left_out[entry] = never
                continue
            is_link = whole.is_symlink()
            self._followed += is_link
            if self._followed > MAX_LINKED_FOLDERS:
                raise UsageError(
                    f"Links to folders in the source root {self._root} lead to more than"
                    f" {MAX_LINKED_FOLDERS:,} folders; one of them is {entry}.",
                    hint="List the links in .dockerignore.",
                )
            passed = (*above, self._real_root / real)
            yield from self._entries(entry, passed, ask_git=ask_git and (tracked or is_link))

    def _listed(self, folder: Path, ask_git: bool) -> Iterator[tuple[Path, bool]]:
        whole = self._root / folder
        entries: list[git_files.Entry] = []
        if ask_git:
            entries = git_files.listed(whole)
        if entries:
            self._tree.in_git |= not folder.parts
            with contextlib.suppress(GitError):
                for path, rule in git_files.ignored(whole):
                    self._leave_out(folder / path, rule)
            for entry in entries:
                yield folder / entry.path, entry.tracked
            return
        for path in self._walked(folder):
            yield path, False

    def _walked(self, folder: Path) -> Iterator[Path]:
        """List a folder's files without Git."""

        def left_out(path: Path, rule: str) -> None:
            self._leave_out(folder / path, rule)

        for path in git_files.walk(self._root / folder, self._skipped, left_out):
            yield folder / path

    def _leave_out(self, path: Path, rule: str) -> None:
        """Leave a path out by the rule of an ignore file, unless it never goes."""
        never = _never(path) or self._skipped(self._root / path)
        self._tree.left_out[path] = never or rule
        if never is None:
            self._ignored.add(path)

    def _skipped(self, folder: Path) -> str | None:
        """Return the rule by which a folder is left out with all that is in it."""
        if never := _never(Path(folder.name)):
            return never
        is_environment = os.path.isfile(folder / "pyvenv.cfg")  # noqa: PTH113 (raises nothing)
        return "virtual environment" if is_environment else None

    def _included(self, name: str) -> Path:
        path = Path(os.path.normpath(name))
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise self._selection.refusal(
                [name],
                "it is no path below the source root.",
                "Its paths are relative to the source root.",
            )
        if not (self._root / path).exists():
            self._tree.missing.append(name)
        return path


def credential_notes(files: Iterable[SourceFile]) -> list[str]:
    """Return notes on the credential files among those that go."""
    private = [(shown(file.path), file.credential) for file in files if file.credential]
    told = [f"{path} ({reason})" for path, reason in private if reason != DEPLOYMENT_FILE]
    notes = [f"these credential files go along: {listing(told)}"] if told else []
    if own := [path for path, reason in private if reason == DEPLOYMENT_FILE]:
        said = "these deployment files go along, with environment variables"
        notes.append(f"{said}: {listing(own)}")
    return notes


def _never(path: Path) -> str | None:
    found = next((part for part in path.parts if part.casefold() in NEVER), None)
    return found and f"{found} never goes"


def _own_output() -> Iterator[tuple[int, int]]:
    """Yield device and inode of what this process prints to, if it has standard streams."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            found = os.fstat(descriptor)
            yield found.st_dev, found.st_ino


def _is_utf8(path: Path) -> bool:
    """Return whether Modal, whose names are UTF-8, can take a file."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def _dockerignore(root: Path, name: str | None) -> Callable[[Path], bool]:
    """Return a function that is true for the paths that the .dockerignore file excludes."""
    path = Path(os.path.normpath(root / (name or ".dockerignore")))
    try:
        with open_regular(path) as file:
            lines = file.read(git_files.LARGEST_IGNORE_FILE).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        if name is None:
            return lambda _: False
        raise UsageError(
            f"There is no file {path}, which 'dockerignore' in the Docker settings names."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file {path} can't be read: {error}.") from error
    return dockerignore_matcher(lines, str(path))
