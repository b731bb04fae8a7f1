"""A line of an ignore file means what it means to Git or Docker, and is matched in linear time."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.util import garbage_collection
from modalrun.util.globs import MOST_STATES, git_glob
from modalrun.util.ignore_files import dockerignore_matcher, gitignore_rules
from tests.security.growth import assert_linear

NEVER_MATCHED = [
    "!",
    "/",
    "!/",
    "a\\",
    "\\",
    "*\\",
    "[z-a]",
    "[",
    "[a",
    "[]",
    "a[",
    "[[:nothing:]]",
    "[a\\",
]
"""Lines that Git reads and matches nothing with."""


@pytest.fixture(autouse=True)
def _warnings_are_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def listed(root: Path) -> list[str]:
    return [file.path.as_posix() for file in select(SourceSelection(root)).files]


@pytest.mark.parametrize("place", ["elsewhere", "in a nested repository"])
@pytest.mark.parametrize("line", NEVER_MATCHED)
def test_a_line_that_git_matches_nothing_with_is_ignored(
    tmp_path: Path, line: str, place: str
) -> None:
    if place == "elsewhere":
        folder = tmp_path
    else:
        folder = tmp_path / "vendor"
        folder.mkdir()
        for repository in (tmp_path, folder):
            subprocess.run(["git", "init", "-q", str(repository)], check=True)
    (folder / ".gitignore").write_text(f"{line}\n.gitignore\nb.py\n")
    for name in ("a.py", "b.py"):
        (folder / name).touch()
    assert listed(tmp_path) == [(folder / "a.py").relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("[[:alpha:]]x", ["ax"]),
        ("[![:alpha:]]x", ["1x", "-x", "[x", ":x"]),
        ("[a-\\d]x", ["ax"]),
        ("[]-]x", ["-x"]),
        ("[[]x", ["[x"]),
        ("[[:]x", ["[x", ":x"]),
        ("[a&&b||c~~e]x", ["ax"]),
        ("[--1]x", ["1x", "-x"]),
    ],
)
def test_brackets(pattern: str, names: list[str]) -> None:
    (rule,) = gitignore_rules(pattern.encode())
    all_names = ["ax", "1x", "-x", "[x", ":x"]
    assert [one for one in all_names if rule.matches(one.encode(), is_folder=False)] == names
    if "!" not in pattern:
        matcher = dockerignore_matcher([pattern], "a file")
        assert [one for one in all_names if matcher(Path(one))] == names


@pytest.mark.parametrize("line", ["!", "a\\", "[a", "[z-a]", "[[:nothing:]]"])
def test_docker_refuses_a_line_that_is_no_pattern(line: str) -> None:
    with pytest.raises(UsageError, match="a file: Docker can't read the pattern"):
        dockerignore_matcher([line], "a file")


def test_bytes_of_any_kind(tmp_path: Path) -> None:
    """Git's wildcards match bytes, a mark at the beginning is skipped, lines may end with \\r."""
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbf.gitignore\r\n\xff?\nd\x85e\nx\\ \n\xc3?y ")
    for name in (b"\xc3\xa9y", b"x ", b"a.py"):
        (tmp_path / os.fsdecode(name)).touch()
    assert listed(tmp_path) == ["a.py"]


# Time.


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 30 + "b", "a" * 250),
        ("**/" * 30 + "x", "f/" * 60),
        ("**/f/" * 30 + "x", "f/" * 60),
        ("a**" * 30 + "b", "a/" * 60),
        ("*?" * 120 + "b", "a" * 250),
        ("[a]*" * 60, "a" * 250),
        ("**/*a*/" * 30 + "b", "aaa/" * 60),
        ("*" * 1000 + "b", "a" * 250),
    ],
)
def test_no_pattern_is_exponential(pattern: str, path: str) -> None:
    """The pattern alone grows; a matcher that goes back would not end."""
    (rule,) = gitignore_rules(pattern.encode())
    rule.matches(path.encode(), is_folder=False)
    dockerignore_matcher([pattern], "a file")(Path(path))


@pytest.mark.parametrize("piece", ["*a", "**/", "**/a/", "a**", "[", "[:", "[a]", "\\a", " ", "*?"])
def test_a_long_line(piece: str) -> None:
    def read(text: str) -> None:
        with garbage_collection.paused():
            for rule in gitignore_rules(text.encode()):
                rule.matches(b"a" * 100, is_folder=False)

    assert_linear(read, lambda n: f"{piece * n}b", 5_000)


def test_a_pattern_with_very_many_states_remembers_few() -> None:
    glob = git_glob("*a" + "?" * 30)
    for number in range(5_000):
        glob.matches(f"{number * 7919:032b}".replace("1", "a"))
    assert len(glob._states) <= MOST_STATES + 1


# The same as Git and Docker.

PIECES = st.sampled_from(
    ["a", "b", "/", "*", "**/", "/**", "?", "[a-b]", "[!a]", "[", "]", "!", "-", "\\", " ", "#"]
)
PATTERNS = st.lists(PIECES, min_size=1, max_size=7).map("".join)
PATHS = st.lists(st.text("ab!-[] ", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def check_git(repository: Path, patterns: list[str], paths: list[str]) -> None:
    text = "\n".join(patterns)
    (repository / ".gitignore").write_text(text)
    answer = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=repository,
        input="\0".join(paths).encode(),
        capture_output=True,
        check=False,
    ).stdout
    rules = gitignore_rules(text.encode())

    def is_ignored(path: str) -> bool:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            part = "/".join(parts[:end]).encode()
            found = [r for r in rules if r.matches(part, is_folder=end < len(parts))]
            if found and found[-1].ignores:
                return True
        return False

    ignored = {path.decode() for path in answer.split(b"\0")[:-1]}
    assert {path for path in paths if is_ignored(path)} == ignored


def check_docker(pattern: str, paths: list[str]) -> None:
    from modal import FilePatternMatcher

    theirs, ours = FilePatternMatcher(pattern), dockerignore_matcher([pattern], "a file")
    for path in paths:
        assert ours(Path(path)) == theirs(Path(path))


DOCKER_PATTERNS = (
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[a-b]"]), min_size=1)
    .map("".join)
    .filter(lambda pattern: pattern.strip("/") != "")
)


@settings(deadline=None, max_examples=40)
@given(st.lists(PATTERNS, max_size=3), st.lists(PATHS, min_size=1, max_size=20))
def test_git_agrees(repository: Path, patterns: list[str], paths: list[str]) -> None:
    check_git(repository, patterns, paths)


@settings(deadline=None, max_examples=100)
@given(DOCKER_PATTERNS, st.lists(PATHS, min_size=1, max_size=20))
def test_the_port_of_dockers_matcher_agrees(pattern: str, paths: list[str]) -> None:
    check_docker(pattern, paths)


@pytest.mark.exhaustive
@settings(deadline=None, max_examples=1_000)
@given(st.lists(PATTERNS, max_size=3), st.lists(PATHS, min_size=1, max_size=20))
def test_git_agrees_about_many(repository: Path, patterns: list[str], paths: list[str]) -> None:
    check_git(repository, patterns, paths)
