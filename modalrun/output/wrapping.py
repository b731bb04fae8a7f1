"""Lines that fit a terminal: broken between words, and what somebody may copy is kept whole."""

from __future__ import annotations

import os
import re
import textwrap
from typing import IO

NO_BREAK = "\u00a0"
"""A blank that no line is broken at; it is shown as a plain one."""

_LABELLED = re.compile(r"(?: *- | *\S+(?: \S+)? {2,})(?=\S)")
"""What the lines below stay clear of: a dash, or a label with blanks behind it."""

_QUOTED = re.compile(r"(?<![^\s(])'[^'\n]+'(?![^\s).,;:])")
_COMMAND = re.compile(r"\s+(?:\S+ {2,})?(?:modalrun|modal|zenml|python|pip|rm|https?:/)\b")


def terminal_width(stream: IO[str]) -> int | None:
    """Columns of the terminal that a stream is; None for anything else, which has no width."""
    try:
        if not stream.isatty():
            return None
        told = os.environ.get("COLUMNS", "")
        return int(told) if told.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None


def wrapped(text: str, width: int | None, *, indent: int | None = None) -> list[str]:
    """A line in as many as a terminal needs.

    A word that is too long (a URL, a path) and a command in quotes keep to one line, which the
    terminal itself breaks: copied from there they are whole. So does a line that is a command.

    Args:
        text: One line.
        width: Columns of the terminal; None for no limit.
        indent: Blanks before the second line and on; those of the first line's text without it.
    """
    if not width or len(text) <= width or _COMMAND.match(text):
        return [text.replace(NO_BREAK, " ")]
    if indent is None:
        label = _LABELLED.match(text)
        indent = len(label[0]) if label else len(text) - len(text.lstrip()) or 2
    # Where little room is left, clear of nothing is better than a word a line.
    indent = indent if indent <= width // 2 else 2
    longest = max(map(len, text.split(" ")))
    if longest <= width - 2:
        indent = min(indent, width - longest)
    whole = _QUOTED.sub(lambda quoted: quoted[0].replace(" ", NO_BREAK), text)
    lines = textwrap.wrap(
        whole,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )
    return [line.replace(NO_BREAK, " ") for line in lines]
