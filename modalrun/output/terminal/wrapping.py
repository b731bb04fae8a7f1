"""Break lines for a terminal between words, and keep whole what somebody may copy. Pure."""

from __future__ import annotations

import re
import textwrap

NO_BREAK = "\u00a0"
"""A blank at which no line is broken; it is shown as a plain one."""

_LABELLED = re.compile(r"(?: *- | *\S+(?: \S+)? {2,})(?=\S)")
"""A dash, or a label with blanks behind it: the lines below are indented by its width."""

_QUOTED = re.compile(r"(?<![^\s(])'[^'\n]+'(?![^\s).,;:])")
_MARKS = re.compile(r"[ ^~]*")
"""What a traceback has below a line of code."""

_COLOUR = re.compile(r"\x1b\[[\d;:]*m")

_COMMAND = re.compile(r"\s+(?:\S+ {2,})?(?:modalrun|modal|zenml|python|pip|rm|https?:/)\b")


def wrapped(text: str, width: int | None, *, indent: int | None = None) -> list[str]:
    """Break a line into lines that fit a terminal.

    A URL, a path, a command in quotes, and a line that is a command stay on one line, which the
    terminal itself breaks if they are too long: they can be copied as a whole. Any other word that
    is longer than the width is broken where the line ends.

    Args:
        text: One line.
        width: Columns of the terminal; None for no limit.
        indent: Blanks before the second line and on; by default as many as fit the first line.
    """
    if not width or len(text) <= width or _COMMAND.match(text):
        return [text.replace(NO_BREAK, " ")]
    if _MARKS.fullmatch(text):
        # Below a line of code, of which the terminal shows the beginning here.
        return [text[:width].rstrip()]
    if indent is None:
        label = _LABELLED.match(text)
        indent = len(label[0]) if label else len(text) - len(text.lstrip()) or 2
    indent = indent if indent <= width // 2 else 2
    longest = max(map(len, text.split(" ")))
    if longest <= width - 2:
        indent = min(indent, width - longest)
    whole = _QUOTED.sub(lambda quoted: quoted[0].replace(" ", NO_BREAK), text)
    room = width - indent
    copied = (word for word in whole.split(" ") if "/" in word or NO_BREAK in word)
    lines = textwrap.wrap(
        whole,
        width,
        subsequent_indent=" " * indent,
        break_long_words=all(len(word) <= room for word in copied),
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )
    # Of nothing but blanks, there is no line.
    return [line.replace(NO_BREAK, " ") for line in lines] or [""]


def wrapped_in_colour(text: str, width: int) -> list[str]:
    """Break a line with colours into lines that fit a terminal, which are not indented.

    Args:
        text: One line; its only escape sequences are those of colours.
    """
    text = text.replace(NO_BREAK, " ")
    parts = wrapped(_COLOUR.sub("", text), width, indent=0)
    if "\x1b" not in text:
        return parts
    lines, at = [], 0
    for part in parts:
        line = ""
        for character in part:
            # Before it stand colours, or the blanks at which the line was broken.
            while (colour := _COLOUR.match(text, at)) or text[at] != character:
                line += colour[0] if colour else ""
                at = colour.end() if colour else at + 1
            line += character
            at += 1
        lines.append(line)
    lines[-1] += "".join(_COLOUR.findall(text, at))
    return lines
