"""Remove from text what could control a terminal or CI. Pure."""

from __future__ import annotations

import re

_SGR = r"\x1b\[[0-9;:]*m"
_CONCEAL = re.compile(r"(?:^|;)0*8(?=;|$)")
"""The part of a colour sequence that hides the text after it."""

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor movement, erasing
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # strings: window titles, links, device control
    r"|\x1b[ -/]*[0-~]"  # other escapes
    r"|\x9b[0-?]*[ -/]*[@-~]?"  # control sequences and strings that a C1 character begins
    r"|[\x9d\x90\x98\x9e\x9f].*?(?:\x07|\x9c|\x1b\\|$)"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COLOUR = re.compile(_SGR)


def harmless(line: str, *, colours: bool) -> str:
    """Remove from a line whatever could move the cursor, mislead or hide text.

    Args:
        line: One line, without its line feed. Of a progress bar that redraws itself with carriage
            returns, the last state is kept.
        colours: Whether to keep colours and bold; all other controls are removed.
    """
    line = line.rstrip("\r").rpartition("\r")[2]
    if line.isprintable():
        return line
    kept: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if colours and _COLOUR.fullmatch(match[0]) and not _CONCEAL.search(match[0][2:-1]):
            kept.append(match[0])
            # A private-use character keeps the place while control characters are removed.
            return "\ue000"
        return ""

    clean = _CONTROLS.sub("", _ESCAPES.sub(replace, line.replace("\ue000", "")))
    parts = iter(kept)
    return re.sub("\ue000", lambda _: next(parts), clean)


def without_commands(line: str) -> str:
    """Change a line so that GitHub's runner takes it for text, not for a workflow command.

    It looks for `::` at the start of a line, after blanks, and for `##[` anywhere
    (`ActionCommand.cs` of actions/runner); both get a blank, so that they stay readable.
    """
    line = line.replace("##[", "## [")
    text = line.lstrip()
    return f"{line[: len(line) - len(text)]}: {text[1:]}" if text.startswith("::") else line
