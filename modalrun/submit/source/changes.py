"""Compare a source tree with the files that a run was submitted with. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from modalrun.run.source import MOST_FILES
from modalrun.util.text import listing

_DIGITS = 12
"""Characters of a file's hash that are stored: 48 bits, for changes, not against attacks."""


@dataclass(frozen=True)
class Changes:
    """List the files that differ, by path, sorted.

    Attributes:
        changed: Files with another content or another executable bit.
        missing: Files that are no longer there.
        new: Files that were not there.
    """

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the first few files that are not as they were, each with its change."""
        kinds = {"changed": self.changed, "missing": self.missing}
        return listing([f"{path} ({kind})" for kind, paths in kinds.items() for path in paths])


def hashes_to_store(hashes: Mapping[str, str]) -> dict[str, str]:
    """Shorten the hashes of a run's files; return none if there are too many."""
    if len(hashes) > MOST_FILES:
        return {}
    return {path: _short(text) for path, text in hashes.items()}


def compare(
    submitted: Mapping[str, str], found: Mapping[str, str], present: Collection[str] = ()
) -> Changes:
    """Compare the files that a run was submitted with to those that are there now.

    Args:
        submitted: The stored hashes, by path.
        found: The full hashes of the files that go now.
        present: The paths of all files that would be submitted now.
    """
    changed = [p for p, stored in submitted.items() if p in found and _short(found[p]) != stored]
    return Changes(
        changed=tuple(sorted(changed)),
        missing=tuple(sorted(submitted.keys() - found.keys())),
        new=tuple(sorted(set(present) - submitted.keys() - found.keys())),
    )


def _short(text: str) -> str:
    content, plus, mode = text.partition("+")
    return f"{content[:_DIGITS]}{plus}{mode}"
