"""List the files of a folder that Git tracks or would track, and those that it ignores.

A repository may be somebody else's, unpacked from an archive: none of its configuration may run a
program. So a repository inside the tree is not asked, unless it is a submodule.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.util.ignore_files import GitRule, gitignore_rules
from modalrun.util.regular_files import open_regular

SAFE_GIT = (
    "git",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    # A folder that only looks like a repository may be part of one.
    *("-c", "safe.bareRepository=explicit"),
    "--no-pager",
    "--no-optional-locks",
)
"""Git, without the programs that a repository's configuration names."""

_SAFE_ENVIRONMENT = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
"""A repository that lacks objects would fetch them, with a program that it names."""

_OF_REPOSITORY = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"})

SECONDS = 30
"""How long Git may take. It waits forever for a named pipe that it reads."""

LARGEST_IGNORE_FILE = 1_000_000
"""Bytes that are read of a `.gitignore` or `.dockerignore`."""

_NO_GIT = "git is not installed"

LeftOut = Callable[[Path, str], object]
"""Receives a path that is left out, and the rule."""


@dataclass(frozen=True)
class Entry:
    """A path that Git lists.

    Attributes:
        path: Relative to the folder. A folder is a submodule, or a repository of its own.
        tracked: Whether Git tracks it.
    """

    path: Path
    tracked: bool


class GitError(UsageError):
    """Git can't list the files of a repository: which files go would be a guess."""

    def __init__(self, folder: Path, repository: Path, reason: str) -> None:
        if "dubious ownership" in reason:
            hint = (
                "The repository is another user's, as in many CI jobs. Run this before:\n"
                f"git config --global --add safe.directory {shlex.quote(str(repository))}"
            )
        elif reason == _NO_GIT:
            hint = (
                f"Install git. Where a CI image has none, leave {repository / '.git'} out of it:"
                " then the .gitignore files alone decide."
            )
        elif (own := repository / ".git").is_dir() and not any(own.iterdir()):
            hint = f"The folder {own} is empty: remove it, or run 'git init' in {repository}."
        else:
            hint = f"See what 'git status' says in {folder}."
        super().__init__(
            f"Git can't say which files of {folder} go to a sandbox: {reason}.", hint=hint
        )


def listed(folder: Path) -> list[Entry]:
    """List the files of a folder that Git tracks or would track; none outside of a repository.

    Git lists nothing in a folder that its repository ignores.

    Raises:
        GitError: There is a repository, and Git does not answer.
    """
    output = _git(folder, "ls-files", "-t", "-z", "--cached", "--others", "--exclude-standard")
    entries = []
    for line in output.split(b"\0"):
        status, _, name = line.partition(b" ")
        if name and _is_below(path := Path(os.fsdecode(name))):
            entries.append(Entry(path, status != b"?"))
    return entries


def ignored(folder: Path) -> list[tuple[Path, str]]:
    """List what Git ignores in a folder, each with its rule: "*.bin in .gitignore:3".

    Raises:
        GitError: Git does not answer.
    """
    options = ("--others", "--ignored", "--exclude-standard", "--directory")
    names = _git(folder, "ls-files", "-z", *options)
    if not names:
        return []
    answer = _git(folder, "check-ignore", "--verbose", "-z", "--stdin", given=names).split(b"\0")
    fields = [os.fsdecode(field) for field in answer]
    return [
        (Path(path), f"{pattern} in {file}:{line}")
        for file, line, pattern, path in zip(*(fields[i::4] for i in range(4)), strict=False)
    ]


def commit_of(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder; None outside of a repository."""
    try:
        return (
            _git(folder, "rev-parse", "--verify", "HEAD").decode("ascii", "replace").strip() or None
        )
    except GitError:
        # A repository without a commit.
        return None


def _git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    real = folder.resolve()
    repositories = [one / ".git" for one in (real, *real.parents) if (one / ".git").exists()]
    for path in (*repositories, real / ".gitignore"):
        # Git would wait forever for a named pipe.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise GitError(real, path.parent, f"{path} is no regular file")
    # Inside a Git hook, Git's own variables name the hook's repository, not this one.
    environment = {k: v for k, v in os.environ.items() if k not in _OF_REPOSITORY}
    try:
        result = subprocess.run(  # noqa: S603 (git, with arguments of ours)
            [*SAFE_GIT, *arguments],
            cwd=folder,
            env=environment | _SAFE_ENVIRONMENT,
            input=given,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = _NO_GIT if isinstance(error, OSError) else f"no answer within {SECONDS} s"
    else:
        if result.returncode == 0:
            return result.stdout
        told = result.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        reason = told.partition("\n")[0]
    # A folder of a repository that only looks like one itself has no tracked files of its own.
    if repositories and "safe.bareRepository" not in reason:
        raise GitError(real, repositories[0].parent, reason)
    return b""


def _is_below(path: Path) -> bool:
    """Whether a path stays in its folder: an index may be made by hand."""
    return not path.is_absolute() and ".." not in path.parts


def walk(folder: Path, skipped: Callable[[Path], str | None], left_out: LeftOut) -> Iterator[Path]:
    """List the files below a folder, and links to folders; read `.gitignore` as Git does.

    Args:
        skipped: Returns the rule by which a folder is left out, if any, by its path.
        left_out: Receives what is left out. Paths are relative to `folder`, here too.
    """
    # For each folder, its own and its parents' rules, the root's first.
    rules: dict[Path, list[tuple[Path, list[GitRule]]]] = {}
    for name, folders, files in os.walk(folder):
        here = Path(name)
        inherited = rules.get(here.parent, []) if here != folder else []
        rules[here] = inherited + _gitignore(here)
        entered = []
        for inner in folders:
            path = here / inner
            rule = skipped(path) or _rule(path, rules[here], folder, is_folder=True)
            if rule is not None:
                left_out(path.relative_to(folder), rule)
            elif path.is_symlink():
                files.append(inner)
            else:
                entered.append(inner)
        folders[:] = entered
        for inner in files:
            path = here / inner
            rule = _rule(path, rules[here], folder, is_folder=False)
            if rule is not None:
                left_out(path.relative_to(folder), rule)
            else:
                yield path.relative_to(folder)


def _gitignore(folder: Path) -> list[tuple[Path, list[GitRule]]]:
    try:
        with open_regular(folder / ".gitignore") as file:
            return [(folder, gitignore_rules(file.read(LARGEST_IGNORE_FILE)))]
    except OSError:
        return []


def _rule(
    path: Path, rules: list[tuple[Path, list[GitRule]]], root: Path, *, is_folder: bool
) -> str | None:
    """Return the rule by which Git ignores a path: the nearest `.gitignore` that matches decides.

    As in gitignore(5), nothing inside an ignored folder can be included again.
    """
    for folder, lines in reversed(rules):
        relative = os.fsencode(path.relative_to(folder))
        for line in reversed(lines):
            if line.matches(relative, is_folder=is_folder):
                file = (folder / ".gitignore").relative_to(root).as_posix()
                return f"{line.line} in {file}" if line.ignores else None
    return None
