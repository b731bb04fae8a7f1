"""Match paths with the wildcards of `.gitignore` and `.dockerignore`, in linear time.

A regular expression would try every way to split a name among ten stars. Here, all the places of
the pattern that the text read so far can lead to are followed at once, as an automaton.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterable
from typing import NamedTuple

MOST_STATES = 1_000
"""States that one pattern remembers. A pattern can be made that has 2^n of them."""

_BRACKET_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, (*range(32), 127))),
    "digit": string.digits,
    "graph": string.ascii_letters + string.digits + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.ascii_letters + string.digits + string.punctuation + " ",
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}

_CLASS = re.compile(r"\[:([^\]]{0,99}):\]")
_SPECIAL = re.compile(r"[*?\[\\]")
_END_OF_PART = re.compile(r"\\?/|\Z")
_STARS = re.compile(r"\*+")


class BadPatternError(ValueError):
    """A pattern that is none: it has a bracket or a backslash that nothing follows."""


class _Part(NamedTuple):
    """Match one character, or any number of them.

    Attributes:
        test: Whether a character fits.
        repeats: Any number of characters fit.
        optional: This part and the next may be left out.
    """

    test: Callable[[str], bool]
    repeats: bool = False
    optional: bool = False


_END = _Part(lambda _: False)
_SLASH = _Part("/".__eq__)
_ONE = _Part("/".__ne__)
_NAME = _Part("/".__ne__, repeats=True)
_ANYTHING = _Part(lambda _: True, repeats=True)
_FOLDERS = (_Part(lambda _: True, repeats=True, optional=True), _SLASH)


class _State(dict[str, "_State"]):
    """The places that a text can lead to: the state after each character, made when asked for."""

    def __init__(self, glob: Glob, places: frozenset[int]) -> None:
        super().__init__()
        self.glob = glob
        self.places = places

    def __missing__(self, character: str) -> _State:
        return self.glob.follow(self, character)


class Glob:
    """Match a text with a pattern. Made by `git_glob` and `docker_glob`."""

    def __init__(self, parts: list[_Part]) -> None:
        self._parts = [*parts, _END]
        self._states: dict[frozenset[int], _State] = {}
        self._start = _State(self, self._arrived([0]))

    def matches(self, text: str) -> bool:
        """Return whether the pattern matches the whole text."""
        state = self._start
        for character in text:
            state = state[character]
            if not state.places:
                return False
        return len(self._parts) - 1 in state.places

    def follow(self, state: _State, character: str) -> _State:
        """Return the state after a character, and remember it."""
        parts = self._parts
        fitting = [place for place in state.places if parts[place].test(character)]
        places = self._arrived(place + 1 for place in fitting).union(
            place for place in fitting if parts[place].repeats
        )
        if len(self._states) > MOST_STATES:
            for known in (self._start, *self._states.values()):
                known.clear()
            self._states.clear()
        found = state[character] = self._states.setdefault(places, _State(self, places))
        return found

    def _arrived(self, places: Iterable[int]) -> frozenset[int]:
        """Add the places that are reached by leaving parts out."""
        found: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                if self._parts[place].repeats:
                    waiting.append(place + 1)
                if self._parts[place].optional:
                    waiting.append(place + 2)
        return frozenset(found)


def git_glob(text: str) -> Glob:
    """Read a pattern as Git's `wildmatch.c` does, for paths without a slash at either end.

    Raises:
        BadPatternError: Git matches nothing with it.
    """
    parts: list[_Part] = []
    # Git compares what is before the first wildcard on its own: "**" after it begins a pattern.
    first = len(_SPECIAL.split(text, maxsplit=1)[0])
    at = 0
    while at < len(text):
        stars = _STARS.match(text, at)
        if stars is None:
            at = _character(text, at, parts, docker=False)
            continue
        begins = at == first or text[at - 1] == "/"
        at = stars.end()
        if len(stars[0]) == 1 or not begins or not _END_OF_PART.match(text, at):
            parts.append(_NAME)
        elif text.startswith("/", at):
            _add_folders(parts)
            at += 1
        else:
            parts.append(_ANYTHING)
    return Glob(parts)


def docker_glob(text: str) -> Glob:
    """Read a pattern as Docker's `patternmatcher.go` does, for paths that a slash follows.

    It also matches what is below a folder that it matches.

    Raises:
        BadPatternError: It is none.
    """
    parts: list[_Part] = []
    at = 0
    while at < len(text):
        if text.startswith("**", at):
            at += 2
            # Docker compares the end of a path with "**.pyc", and reads "**.py?" as "**/.py?".
            is_end = at == 2 and text[2:3] != "/" and not _SPECIAL.search(text, at)
            at += text.startswith("/", at)
            if is_end or at == len(text):
                parts.append(_ANYTHING)
            else:
                _add_folders(parts)
        elif text[at] == "*":
            parts.append(_NAME)
            at += 1
        else:
            at = _character(text, at, parts, docker=True)
    return Glob([*parts, _SLASH, _ANYTHING])


def _add_folders(parts: list[_Part]) -> None:
    """Add "**/", but once: twice means the same."""
    if tuple(parts[-2:]) != _FOLDERS:
        parts.extend(_FOLDERS)


def _character(text: str, at: int, parts: list[_Part], *, docker: bool) -> int:
    """Add what matches one character; return where the rest of the pattern begins."""
    if text[at] == "[":
        try:
            test, at = _bracket(text, at + 1, docker)
        except IndexError:
            raise BadPatternError(text) from None
        parts.append(_Part(test))
        return at
    if text[at] == "?":
        parts.append(_ONE)
        return at + 1
    at += text[at] == "\\"
    if at == len(text):
        raise BadPatternError(text)
    parts.append(_literal(text[at]))
    return at + 1


@functools.cache
def _literal(character: str) -> _Part:
    return _Part(character.__eq__)


def _bracket(text: str, at: int, docker: bool) -> tuple[Callable[[str], bool], int]:
    """Read "[...]", from after its beginning; return its test and where it ends.

    Raises:
        IndexError: It has no end.
        BadPatternError: It names an unknown class; or, for Docker, a range is empty.
    """
    negated = text[at] in ("^" if docker else "!^")
    at += negated
    begin = at
    ranges: list[tuple[str, str]] = []
    # The character before "-"; none if it ends a range or is a class.
    previous = ""
    while text[at] != "]" or at == begin:
        if found := _CLASS.match(text, at):
            if found[1] not in _BRACKET_CLASSES:
                raise BadPatternError(text)
            ranges += [(one, one) for one in _BRACKET_CLASSES[found[1]]]
            previous = ""
            at = found.end()
            continue
        is_range = text[at] == "-" and previous != "" and text[at + 1] != "]"
        at += is_range
        at += text[at] == "\\"
        ranges.append((previous if is_range else text[at], text[at]))
        if docker and ranges[-1][0] > ranges[-1][1]:
            raise BadPatternError(text)
        previous = "" if is_range else text[at]
        at += 1
    return lambda one: one != "/" and negated != any(a <= one <= z for a, z in ranges), at + 1
