"""Remove from text what could control a terminal or CI, or hide text. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_HIDDEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    r"\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f"  # order of writing
    r"\u2028\u2029\ufff9-\ufffb"  # separators of lines, annotations
    # Unicode's default ignorable code points: nothing is shown for them.
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff"
)
_SUSPECT = re.compile(rf"[\n\ud800-\udfff{_HIDDEN}]")
_UNSAFE = re.compile(
    r"\x1b\[(?P<colour>[0-9;:]{0,64})m"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: cursor movement, erasing
    # Strings: window titles, links, device control.
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x9c|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]"  # other escapes
    r"|\x9b[0-?]*[ -/]*[@-~]?"  # control sequences that a C1 character begins
    rf"|[\n\ud800-\udfff{_HIDDEN}]"
)
_STYLE = re.compile(r"[1-49]?|4:[0-5]|2[1-49]|3[1-69]|9[1-6]")
"""Reset, bold, dim, italic, underlined, struck; colours, but for black, white and greys."""

_COMMAND = re.compile(r"^(?:\s|\x1b\[[0-9;:]*m)*:(?=:)|##(?=\w*\[)|section_(?:start|end)(?=:\d)")
_JSON_ESCAPES = {"##": r"#\u0023", "section_": r"section\u005f", "\x7f": r"\u007f"}
_UNFINISHED = re.compile(r"^\s*:$|#\w*$|section_(?:start|end):?$")


def harmless(line: str, *, colours: bool) -> str:
    """Remove from a line whatever could move the cursor, mislead or hide text.

    Args:
        line: One line; a line feed in it becomes a blank. Of a progress bar that redraws itself
            with carriage returns, the last state is kept.
        colours: Whether to keep bold and colours that are legible on any background; everything
            else is removed.
    """
    return _cleaned(line.rstrip("\r").rpartition("\r")[2], colours=colours)


def plain(text: str) -> str:
    """Neutralise a text of one or more lines, for a terminal and for CI."""
    return "\n".join(without_commands(_cleaned(line)) for line in text.splitlines())


class Pieces:
    """Neutralise the pieces of a stream, each of which may begin and end within a line.

    Args:
        colours: As for `harmless`.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._begins_line = True

    def end_line(self) -> None:
        """Note that the next piece begins a line."""
        self._begins_line = True

    def clean(self, text: str) -> str:
        """Neutralise the next piece."""
        first, *rest = text.split("\n")
        start = "" if self._begins_line else "x"
        lines = [without_commands(start + _cleaned(first, colours=self._colours))[len(start) :]]
        lines += [without_commands(_cleaned(line, colours=self._colours)) for line in rest]
        if _UNFINISHED.search(start + lines[-1] if not rest else lines[-1]):
            lines[-1] += " "
        self._begins_line = (self._begins_line or bool(rest)) and not lines[-1].strip()
        return "\n".join(lines)


def _cleaned(line: str, *, colours: bool = False) -> str:
    if (line.isascii() and line.isprintable()) or not _SUSPECT.search(line):
        return line
    return _UNSAFE.sub(_legible if colours else _removed, line)


def _removed(match: re.Match[str]) -> str:
    found = match[0]
    if found == "\n":
        return " "
    return "\ufffd" if "\ud800" <= found <= "\udfff" else ""


def _legible(match: re.Match[str]) -> str:
    colour = match["colour"]
    return _removed(match) if colour is None else _colour(colour)


@lru_cache(1024)
def _colour(parameters: str) -> str:
    """Reduce a colour sequence to what shows text on any background; without one to nothing.

    A background, or a colour that is near black or white, hides text where the terminal's own
    colours are chosen to match.
    """
    kept = []
    rest = iter(parameters.split(";"))
    for text in rest:
        number = text.lstrip("0")
        if number in {"38", "48", "58"}:
            kind = next(rest, "").lstrip("0")
            values = [next(rest, "") for _ in range({"5": 1, "2": 3}.get(kind, 0))]
            levels = [int(value) for value in values if re.fullmatch(r"[0-9]{1,3}", value)]
            if number == "38" and values and len(levels) == len(values) and _is_legible(*levels):
                kept.append(";".join([number, kind, *values]))
        elif _STYLE.fullmatch(number):
            kept.append(text)
    return f"\x1b[{';'.join(kept)}m" if kept else ""


def _is_legible(first: int, *others: int) -> bool:
    """Return whether text of a colour can be read on black and on white.

    Args:
        first: Red, or the number of a colour in the palette of 256.
        others: Green and blue, for a colour that is not of the palette.
    """
    levels = (first, *others)
    if not others:
        if first < 16:
            return first % 8 not in {0, 7}
        if first >= 232:
            levels = (8 + 10 * (first - 232),)
        else:
            steps = (first - 16) // 36, (first - 16) // 6 % 6, (first - 16) % 6
            levels = tuple(40 * step + 55 if step else 0 for step in steps)
    return max(levels) >= 128 and min(levels) <= 175


def without_commands(line: str) -> str:
    """Change a line so that CI takes it for text, not for a workflow command.

    A blank in it leaves it readable. GitHub's runner looks for `::` at the start of a line, after
    blanks, and for `##[` anywhere (`ActionCommand.cs` of actions/runner), Azure for `##vso[`,
    TeamCity for `##teamcity[`, GitLab for `section_start:` and a time.
    """
    # A search for a word is ten times as fast as the pattern.
    if "::" in line or "##" in line or "section_" in line:
        return _COMMAND.sub(r"\g<0> ", line)
    return line


def json_safe(text: str) -> str:
    """Change a JSON text so that nothing in it controls a terminal or CI; its data stay the same.

    Args:
        text: ASCII, as `json.dumps` writes it. What is replaced stands in strings only.
    """
    for sign, escaped in _JSON_ESCAPES.items():
        text = text.replace(sign, escaped)
    return text
