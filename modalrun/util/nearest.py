"""Find the known word, or the path, that a misspelt one most likely means."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`; None if none is alike."""
    matches = difflib.get_close_matches(word, list(known), cutoff=0.6)
    # Of words that are equally alike, the one of the same letters: `us-esat` is `us-east`.
    same = [one for one in matches if sorted(one) == sorted(word)]
    return next(iter(same or matches), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint with the known word most like `word`; `otherwise` if none is alike."""
    close = nearest(word, known)
    return f"Did you mean '{close}'?" if close else otherwise


def misspelling_of(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` is within two typing mistakes of; None if there is none.

    People mistype the first letter rarely: `tpu` is not `gpu`.
    """
    close = nearest(word, (one for one in known if one[:1] == word[:1]))
    if close is None:
        return None
    matcher = difflib.SequenceMatcher(None, word, close, autojunk=False)
    edits = sum(
        max(end - begin, other_end - other_begin)
        for operation, begin, end, other_begin, other_end in matcher.get_opcodes()
        if operation != "equal"
    )
    return close if edits <= 2 and 2 * edits < len(word) else None


def nearest_path(folder: Path, path: Path) -> Path | None:
    """Return the path below a folder that a misspelt one most likely means."""
    found = Path()
    for part in path.parts:
        exists = os.path.lexists(folder / found / part)
        try:
            names = [] if exists else [one.name for one in (folder / found).iterdir()]
        except OSError:
            return None
        close = part if exists else nearest(part, names)
        if close is None:
            return None
        found /= close
    return found


def path_hint(path: Path, end: str = "") -> str:
    """Return a hint for a path that is not there; `end` is what was written after it."""
    close = nearest_path(Path(), path)
    return f"Did you mean '{close}{end}'?" if close else "Check the path."
