"""Read requirements files, as far as an image recipe needs to understand their lines. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.util.paths import checked_path, user_path
from modalrun.util.regular_files import open_regular

MAX_BYTES = 10_000_000
"""Bytes that are read of a file."""

_COMMENT = re.compile(r"(^|\s+)#.*$")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)$")
_LOCAL = re.compile(r"^(?:\.{0,2}/|\.{1,2}$|~|file:)", re.IGNORECASE)
_EDITABLE = re.compile(r"^(?:-e|--editable)[\s=]+")


def read_requirements(path: Path) -> tuple[str, ...]:
    """Return the logical lines of a requirements file, with those of included files (`-r`).

    Raises:
        UsageError: A file can't be read, includes itself, or names a constraints file (`-c`).
    """
    return tuple(_included(path, ()))


def _included(path: Path, within: tuple[Path, ...]) -> Iterator[str]:
    if path in within:
        raise UsageError(f"The requirements file {path} includes itself.")
    for line in logical_lines(read_text(path, "requirements file", "requirements")):
        option, _, value = line.replace("=", " ", 1).partition(" ")
        if option in {"-r", "--requirement"}:
            included = checked_path(value.strip(), f"'{option}' in the requirements file {path}")
            yield from _included((path.parent / included).absolute(), (*within, path))
        elif option in {"-c", "--constraint"}:
            raise UsageError(
                f"The requirements file {path} has '{line}': a constraints file doesn't get into"
                " the image.",
                hint="Write the versions into the requirements file.",
            )
        else:
            yield line


def resolve_path(name: str, source_root: Path) -> Path:
    """Return the file or folder that a Docker setting names.

    ZenML reads relative paths from the working folder, which is usually the source root.
    """
    named = user_path(name, "The Docker settings name a file")
    below = Path(os.path.normpath(source_root / named))
    return below if below.exists() or not Path(name).exists() else Path(name).resolve()


def read_text(path: Path, kind: str, setting: str) -> str:
    """Return the text of a file, described as a `kind`, that a Docker setting names.

    Raises:
        UsageError: It can't be read, or isn't text.
    """
    try:
        with open_regular(path) as file:
            # As pip and Docker do, past the mark of the encoding that some editors write.
            return file.read(MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"The {kind} {path} can't be read: {reason}.",
            hint=f"The Docker setting '{setting}' is read relative to the source root.",
        ) from error


def logical_lines(text: str) -> tuple[str, ...]:
    """Return the lines of a requirements file without comments, with continued lines joined.

    As in pip (`pip/_internal/req/req_file.py`, 25.3), a comment begins at a line's start or after
    white space, so that `#egg=` in a URL stays, and a line of comment is never continued.
    """
    joined, begun = [], ""
    for line in text.splitlines():
        comment = _COMMENT.match(line)
        if line.endswith("\\") and not comment:
            begun += line.strip("\\")
        else:
            joined.append(f"{begun} {line}" if comment else begun + line)
            begun = ""
    lines = (_COMMENT.sub("", line).strip() for line in (*joined, begun))
    return tuple(line for line in lines if line)


def project(line: str) -> str | None:
    """Return a line's project name as PEP 503 writes it, "Scikit_Learn[x]>=1.4" -> "scikit-learn".

    Options and paths have none.
    """
    match = None if line.startswith("-") or _LOCAL.match(line) else _NAME.match(line)
    if match is None or match[2].startswith(("/", ":")):
        return None
    return re.sub(r"[-_.]+", "-", match[1]).lower()


def local_path(line: str) -> str | None:
    """Return the folder or file of this machine that a line installs from, if it names one."""
    editable = _EDITABLE.match(line)
    target = line[editable.end() :] if editable else line
    if "@" in target and not target.startswith(("git+", "http")):
        url = target.split("@", maxsplit=1)[1].strip()
        return url if _LOCAL.match(url) else None
    if _LOCAL.match(target) or (editable and "://" not in target):
        return target
    return None


def is_plain(lines: Iterable[str]) -> bool:
    """Whether the lines can stand on an installer's command line: no options, no hashes."""
    return not any(line.startswith("-") or " --" in line for line in lines)


def has_hashes(lines: Iterable[str]) -> bool:
    """Whether a line pins hashes; installers then demand one for every requirement."""
    return any("--hash" in line or line.startswith("--require-hashes") for line in lines)


def contradictions(lines: Iterable[str], pins: Iterable[str]) -> dict[str, str]:
    """Return the requirement lines that exclude a pinned version ("name==version"), with the pin.

    URLs exclude nothing, nor do lines whose marker excludes this platform or Python.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    pinned = {project(pin): pin for pin in pins if "==" in pin}
    found = {}
    for line in lines:
        pin = pinned.get(project(line))
        if pin is None:
            continue
        try:
            requirement = Requirement(line.split(" --")[0])
        except InvalidRequirement:
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        name, _, version = pin.partition("==")
        if not requirement.specifier.contains(version.strip(), prereleases=True):
            found[line] = f"{name.partition('[')[0].strip()}=={version.strip()}"
    return found
