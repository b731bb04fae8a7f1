"""Requirements files, as far as an image's recipe has to understand them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_COMMENT = re.compile(r"(^|\s+)#.*$")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)$")
_LOCAL = re.compile(r"^(?:\.{0,2}/|\.{1,2}$|~|file:)", re.IGNORECASE)
_EDITABLE = re.compile(r"^(?:-e|--editable)[\s=]+")


def logical_lines(text: str) -> tuple[str, ...]:
    """The lines of a requirements file without comments, with continued lines joined.

    As pip reads them (`pip/_internal/req/req_file.py`): a comment begins at a line's start or after
    white space, so that `#egg=` in a URL stays.
    """
    joined: list[str] = []
    for line in re.sub(r"\\\r?\n\s*", " ", text).splitlines():
        stripped = _COMMENT.sub("", line).strip()
        if stripped:
            joined.append(stripped)
    return tuple(joined)


def project(line: str) -> str | None:
    """The normalised name of the distribution that a line asks for; None for options and paths.

    "Scikit_Learn[extra]>=1.4" -> "scikit-learn".
    """
    if line.startswith("-") or _LOCAL.match(line):
        return None
    match = _NAME.match(line)
    if match is None or match[2].startswith(("/", ":")):
        return None
    return normal(match[1])


def normal(name: str) -> str:
    """A distribution's name as PyPI compares them (packaging.python.org, PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def local_path(line: str) -> str | None:
    """The folder or file of this machine that a line installs from; None if it names none."""
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
    """Whether a line pins hashes, which makes installers ask for one on every requirement."""
    return any("--hash" in line or line.startswith("--require-hashes") for line in lines)


def contradictions(lines: Iterable[str], pins: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The requirements that exclude a version which is pinned elsewhere.

    Args:
        lines: Requirement lines.
        pins: Lines of the form "name==version".

    Yields:
        The line, and the pin that it excludes. Lines for another platform or Python are left out
        only if their marker says so for this one; URLs exclude nothing.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    pinned = {normal(name): (version, f"{name}=={version}") for name, version in _split(pins)}
    for line in lines:
        if project(line) not in pinned:
            continue
        try:
            requirement = Requirement(line.split(" --")[0])
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version, pin = pinned[normal(requirement.name)]
        if not requirement.specifier.contains(version, prereleases=True):
            yield line, pin


def _split(pins: Iterable[str]) -> Iterator[tuple[str, str]]:
    for pin in pins:
        name, separator, version = pin.partition("==")
        if separator:
            yield name.partition("[")[0].strip(), version.strip()
