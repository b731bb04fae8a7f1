"""Find the known word that a misspelt one most likely means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
