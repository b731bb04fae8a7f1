"""Finding the word that a misspelt one means."""

import pytest

from modalrun.util.nearest import did_you_mean, misspelling_of, nearest

KNOWN = ["delay", "parent_image", "python_package_installer", "name"]


@pytest.mark.parametrize(
    ("word", "expected"), [("gppu", "gpu"), ("timeot", "timeout"), ("zzz", None), ("", None)]
)
def test_nearest(word: str, expected: str | None) -> None:
    assert nearest(word, ["gpu", "timeout", "region"]) == expected


def test_swapped_letters_are_the_same_word() -> None:
    assert nearest("us-esat", ["us-east", "us-west"]) == "us-east"


@pytest.mark.parametrize(("word", "hint"), [("gppu", "Did you mean 'gpu'?"), ("zzz", "See 'x'.")])
def test_did_you_mean(word: str, hint: str) -> None:
    assert did_you_mean(word, ["gpu", "timeout"], "See 'x'.") == hint


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("dely", "delay"),
        ("dealy", "delay"),
        ("parent_imgae", "parent_image"),
        ("python_package_instaler", "python_package_installer"),
        # A longer name is another one, and so is a short one with half of its letters changed.
        ("python_package_installer_args", None),
        ("home", None),
        ("zzzzz", None),
    ],
)
def test_misspelling(word: str, known: str | None) -> None:
    assert misspelling_of(word, KNOWN) == known
