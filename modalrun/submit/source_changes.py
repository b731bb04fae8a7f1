"""How a source tree differs from what a run was submitted with. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

MOST_FILES = 2_000
"""Files whose hashes are kept one by one with a run; of more only the hash of all is kept."""

MOST_NAMED = 5
"""Files that a message names."""

_KEPT = 12
"""Characters of a file's hash that are kept: 48 bits, for changes, not for attacks."""


@dataclass(frozen=True)
class Changes:
    """The files that differ, by their paths, sorted.

    Attributes:
        changed: Those with another content, or which can be executed now and could not before.
        missing: Those that are no longer there.
        new: Those that were not there.
    """

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The files with what has become of them, the first few by name."""
        all_ = [
            f"{path} ({what})"
            for what, paths in (
                ("changed", self.changed),
                ("missing", self.missing),
                ("new", self.new),
            )
            for path in paths
        ]
        return listing(all_)


def kept(hashes: Mapping[str, str]) -> dict[str, str]:
    """What is kept with a run of the hashes of its files; nothing where they are too many."""
    if len(hashes) > MOST_FILES:
        return {}
    return {path: short(text) for path, text in hashes.items()}


def short(text: str) -> str:
    """The part of a file's hash that is kept."""
    content, plus, mode = text.partition("+")
    return f"{content[:_KEPT]}{plus}{mode}"


def compare(
    submitted: Mapping[str, str], found: Mapping[str, str], present: Collection[str] = ()
) -> Changes:
    """What has become of the files that a run was submitted with.

    Args:
        submitted: Their hashes as they were kept, by path.
        found: The hashes of those that are there now, by path.
        present: The paths of all files that would be submitted now.
    """
    return Changes(
        changed=tuple(
            sorted(p for p, kept in submitted.items() if p in found and short(found[p]) != kept)
        ),
        missing=tuple(sorted(submitted.keys() - found.keys())),
        new=tuple(sorted(set(present) - submitted.keys())),
    )


def listing(names: Collection[str]) -> str:
    """The first few of some names, and how many there are besides."""
    first = ", ".join(list(names)[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{first} and {more:,} more" if more > 0 else first
