"""Read `.gitignore` as Git does, and `.dockerignore` as Docker does."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.util.globs import BadPatternError, Glob, docker_glob, git_glob


@dataclass(frozen=True)
class GitRule:
    """A line of a `.gitignore` file.

    Attributes:
        line: As it is written.
        ignores: Whether it ignores what it matches; a line that begins with "!" does not.
    """

    line: str
    ignores: bool
    _only_folders: bool
    _by_name: bool
    _glob: Glob

    def matches(self, path: bytes, *, is_folder: bool) -> bool:
        """Return whether the line is about a path, relative to the file's folder."""
        if self._only_folders and not is_folder:
            return False
        return self._glob.matches(_text(path.rpartition(b"/")[2] if self._by_name else path))


def gitignore_rules(content: bytes) -> list[GitRule]:
    """Read the lines of a `.gitignore` file; what Git matches nothing with is left out."""
    rules = []
    for whole in _text(content.removeprefix(b"\xef\xbb\xbf")).split("\n"):
        line = _without_spaces(whole.removesuffix("\r"))
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            path = pattern.removesuffix("/")
            try:
                glob = git_glob(path.removeprefix("/"))
            except BadPatternError:
                continue
            readable = line.encode("latin-1").decode(errors="replace")
            rules.append(GitRule(readable, pattern == line, path != pattern, "/" not in path, glob))
    return rules


def dockerignore_matcher(lines: Iterable[str], where: str) -> Callable[[Path], bool]:
    """Make a matcher of a `.dockerignore` file: whether a relative path is left out.

    Args:
        where: The file, for messages.

    Raises:
        UsageError: A line is not a pattern.
    """
    rules: list[tuple[Glob, bool]] = []
    for line in lines:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        path = pattern.removeprefix("!").strip()
        try:
            if not path:
                raise BadPatternError
            if path := path.strip("/"):
                rules.append((docker_glob(posixpath.normpath(path)), not pattern.startswith("!")))
        except BadPatternError:
            raise UsageError(f"{where}: Docker can't read the pattern {pattern}.") from None
    rules.reverse()

    def matches(path: Path) -> bool:
        text = f"{path.as_posix()}/"
        return next((ignores for glob, ignores in rules if glob.matches(text)), False)

    return matches


def _text(content: bytes) -> str:
    """Make each byte a character: Git's wildcards match bytes."""
    return content.decode("latin-1")


def _without_spaces(line: str) -> str:
    """Remove the spaces at the end of a line, but not one that a backslash is before."""
    short = line.rstrip(" ")
    is_escaped = (len(short) - len(short.rstrip("\\"))) % 2 == 1
    return line[: len(short) + 1] if is_escaped else short
