"""Reduce texts of others to what can be stored, sent and shown everywhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from modalrun.errors import UsageError

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor movement
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links, the clipboard
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def without_surrogates(text: str) -> str:
    r"""Escape lone surrogates (`\udc80`), which no encoding takes."""
    return text.encode("utf-8", "backslashreplace").decode()


def checked_utf8(text: str, what: str) -> str:
    """Return a text that a user has given.

    Raises:
        UsageError: It holds bytes that are not UTF-8; no server takes them.
    """
    if without_surrogates(text) != text:
        raise UsageError(f"{what} is not UTF-8 text: {without_surrogates(text)}")
    return text


def cut(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, with "..." where its end is missing."""
    return text if len(text) <= limit else f"{text[: max(0, limit - 3)]}..."


def one_line(text: str, limit: int) -> str:
    """Return a text as one line of at most `limit` characters, without control characters."""
    return indented_line(text, limit, strip=True)


def indented_line(text: str, limit: int, *, strip: bool = False) -> str:
    """Do the same and keep the blanks at the beginning, unless `strip` is set."""
    # A text of megabytes is not searched to its end for what is cut off.
    text = _CONTROLS.sub(" ", _ESCAPES.sub("", without_surrogates(text[: 8 * limit]))).rstrip()
    text = text.lstrip() if strip else text
    return cut(text, limit)


def shell_word(text: str) -> str:
    """Quote a text for a command that stands in single quotes itself: `'plan "my dir"'`."""
    # The shell replaces these within double quotes.
    if shlex.quote(text) == text or any(one in text for one in '"$`\\!'):
        return shlex.quote(text)
    return f'"{text}"'


def listing(names: Collection[str], most: int = 5) -> str:
    """Name the first few of some names, and count the others."""
    first = ", ".join(list(names)[:most])
    more = len(names) - most
    return f"{first} and {more:,} more" if more > 0 else first
