"""Pausing the garbage collector."""

import gc

import pytest

from modalrun.util import garbage_collection


@pytest.mark.parametrize("fails", [False, True])
def test_collection_is_off_in_the_block_and_what_it_leaves_is_frozen(fails: bool) -> None:
    before = gc.get_freeze_count()
    try:
        with garbage_collection.paused():
            assert not gc.isenabled()
            if fails:
                raise KeyError
            kept = [[] for _ in range(100)]  # type: ignore[var-annotated]
            assert kept
    except KeyError:
        assert fails
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    gc.unfreeze()
