"""Say where a text stops being YAML, and why. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_COMMENT = re.compile(r"\s#")


_KNOWN = (
    (
        "but found another document",
        "a second document begins here",
        "A run spec is one document: remove the '---', or write a file for each.",
    ),
    (
        r"found character '\\t'",
        "a tab stands here",
        "YAML is indented with spaces: put spaces in its place.",
    ),
    (
        "found character '(.)' that cannot start",
        r"no value begins with \1",
        r"Put quotes around a text that begins with \1.",
    ),
    (
        "mapping values are not allowed here",
        "no key can stand here",
        "Put quotes around a value that holds ': '. Keys of one mapping are indented alike.",
    ),
    (
        "expected <block end>",
        "this does not fit what stands before it",
        "Entries of one mapping or list are indented alike, and nothing follows a text in quotes.",
    ),
)
"""The parser's problem -> what is wrong, and what to do."""


def explained(
    error: yaml.MarkedYAMLError, text: str, opened: Sequence[yaml.Mark]
) -> tuple[yaml.Mark | None, str, str | None]:
    """Return the place of a mistake, what is wrong, and what to do.

    Args:
        error: The parser's error. For a bracket or quote that is never closed its place is far
            below, or past the end of the text.
        opened: The begin of the innermost collection that was read; empty for none.
    """
    place, context, problem = error.problem_mark, error.context or "", error.problem or ""
    in_flow = "flow" in context
    began = opened[-1] if "flow node" in context and opened else error.context_mark
    lines = text.splitlines()
    if place and began and (in_flow or "quoted scalar" in context):
        at_end = re.search("stream|document", problem)
        mark = text[began.index : began.index + 1]
        if at_end or (place.line > began.line and re.match("expected ','", problem)):
            also = "" if at_end else f", or a comma is missing before line {place.line + 1}"
            commented = [
                number
                for number, line in enumerate(lines[: place.line + 1], start=1)
                if number > began.line and _COMMENT.search(_QUOTED.sub("", line))
            ]
            hint = (
                f"In line {commented[0]} a '#' after a blank begins a comment: put quotes around a"
                " value that has one."
                if in_flow and commented
                else None
            )
            return began, f"the {mark} that begins here is not closed{also}", hint
    place = place or error.context_mark
    line = "".join(lines[place.line : place.line + 1]) if place else ""
    if "${" in line:
        return place, problem or context, "Inside of { } and [ ], put quotes around '${...}'."
    for pattern, told, hint in _KNOWN:
        if found := re.match(pattern, problem):
            return place, found.expand(told), found.expand(hint)
    return place, problem or context, None
