"""Read the lines of a Dockerfile, and say which of its commands the local Modal server executes.

The plan of a run and the server say the same.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

_CONTINUED = re.compile(r"\\[ \t]*\n")
HEREDOC = re.compile(r"(?<![<(\d])\d*<<-?[\"']?(\w+)")
"""The beginning of a here-document, and the word that ends it."""

# Which words begin a pip install, whatever the installer.
_INSTALL = re.compile(r"(\S*uv pip|\S*pip[\d.]*|\S*python[\d.]* -m pip) install")
# Words that may stand before a command: of the shell, of RUN, and variables.
_BEFORE = re.compile(r"then|else|do|if|!|\{|--\S+|\w+=.*", re.DOTALL)
# As the SDK has uv find the image's Python (`modal/_image.py`, 1.6.4).
_THIS_PYTHON = "--python $(command -v python)"
# Compiling takes longer than what it saves here.
DROPPED = frozenset({"--compile-bytecode", "--system"})
_SILENT = DROPPED | {"--upgrade", "-U", "--quiet", "-q", "--no-cache-dir"}


def instructions(commands: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each instruction of a Dockerfile in capitals, and the rest of its line."""
    lines = "\n".join(commands).split("\n")
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in _CONTINUED.sub(" ", text).split("\n")]
    while lines:
        instruction, rest = (*lines.pop(0).split(maxsplit=1), "", "")[:2]
        if instruction.upper() in {"RUN", "COPY", "ADD"}:
            # What never ends is no here-document.
            for end in filter(lines.__contains__, HEREDOC.findall(rest)):
                del lines[: lines.index(end) + 1]
        yield instruction.upper(), rest


def not_executed(runs: Iterable[str], *, installs: bool) -> list[str]:
    """Return the `RUN` lines without effect on the local Modal server.

    Those that install packages that are here have none, either, and are left out.

    Args:
        runs: The text of each line, without `RUN`.
        installs: Whether the image has a Python of its own, for which packages are installed.
    """
    return [
        run
        for run in runs
        for words, installed in parsed(run)
        if words[0] != "cd" and words != ["apt-get", "update"]
        if installed is None or not (installs or _are_here(installed))
    ]


def _are_here(arguments: Sequence[str]) -> bool:
    """Tell whether this Python has what the arguments of an installer name."""
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = [Requirement(word) for word in arguments if word not in _SILENT]
        return all(
            not one.url and one.specifier.contains(metadata.version(one.name), prereleases=True)
            for one in wanted
            if one.marker is None or one.marker.evaluate()
        )
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False


def parsed(run: str) -> Iterator[tuple[list[str], list[str] | None]]:
    """Yield the commands of a RUN line, and the arguments of those that install packages."""
    for words in _commands(run):
        found = _INSTALL.match(" ".join(words))
        is_known = found is not None and "$" not in shlex.join(words)
        yield words, words[len(found.group().split()) :] if found and is_known else None


def _commands(run: str) -> Iterator[list[str]]:
    """Split the text of a RUN line into simple commands, without redirections."""
    lexer = shlex.shlex(run.replace(_THIS_PYTHON, ""), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        found = [*json.loads(run), ";"] if run.startswith("[") else [*lexer, ";"]
    except ValueError:
        # Not the text of a command; its build fails on Modal.
        found = [repr(run), ";"]
    words: list[str] = []
    skip = False
    for word in found:
        if set(word) <= set("();&|"):
            if words:
                yield words
            words = []
        elif word in {">", ">>", "<", ">&", "&>"}:
            skip = True
            if words and words[-1].isdigit():
                words.pop()
        elif skip:
            skip = False
        elif words or not _BEFORE.fullmatch(word):
            words.append(word)
