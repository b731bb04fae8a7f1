"""Names and tags fit Modal's bounds, and different texts never give the same name."""

import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st

from modalrun.run.tags import MAX_NAME, MAX_TAG, fit

TEXTS = st.text(min_size=1, max_size=200)
VALID = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=200)


def test_the_bounds_are_those_of_the_installed_sdk() -> None:
    from modal._utils.name_utils import is_valid_object_name, is_valid_tag

    assert is_valid_object_name("a" * MAX_NAME)
    assert not is_valid_object_name("a" * (MAX_NAME + 1))
    assert is_valid_tag("a" * MAX_TAG, 63)
    assert not is_valid_tag("a" * (MAX_TAG + 1), 63)


@given(text=TEXTS)
def test_any_name_fits_modal(text: str) -> None:
    from modal._utils.name_utils import is_valid_object_name, is_valid_tag

    assert is_valid_object_name(fit(text, MAX_NAME))
    assert is_valid_tag(fit(text, MAX_TAG), MAX_TAG)


@given(text=VALID, limit=st.sampled_from([MAX_NAME, MAX_TAG]))
def test_a_name_that_fits_is_kept(text: str, limit: int) -> None:
    assert (fit(text, limit) == text) == (len(text) <= limit)


@given(texts=st.lists(TEXTS | VALID, min_size=2, max_size=20, unique=True))
def test_cut_names_never_collide(texts: list[str]) -> None:
    assert len({fit(text, MAX_TAG) for text in texts}) == len(texts)


@given(start=VALID.filter(lambda t: len(t) > 64), ends=st.lists(TEXTS, min_size=2, unique=True))
def test_names_that_differ_behind_the_cut_never_collide(start: str, ends: list[str]) -> None:
    assert len({fit(start + end, MAX_NAME) for end in ends}) == len(ends)


def test_names_that_differ_in_replaced_characters_never_collide() -> None:
    assert len({fit(text, MAX_NAME) for text in ("a b", "a/b", "a-b", "a\nb", "aéb")}) == 5


def test_fit_is_the_same_in_every_process() -> None:
    digest = hashlib.sha256(b"train me").hexdigest()
    assert fit("train me", MAX_NAME) == f"train-me-{digest[:8]}"
