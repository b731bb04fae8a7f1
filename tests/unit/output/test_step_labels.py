"""Labels of steps where there is little room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from modalrun.output.terminal.step_labels import ShortNames, StepLabels, label_width
from tests.security.growth import assert_linear


def shortened(names: list[str], room: int) -> dict[str, str]:
    short = ShortNames(room)
    short.add(names)
    return short.forms


NAMES = st.lists(st.text(st.sampled_from("ab_日1"), min_size=1, max_size=30), max_size=12)


def test_what_is_too_long_loses_its_middle() -> None:
    europe, america = (f"preprocess_transactions_{where}" for where in ("europe", "america"))
    assert shortened([europe, america, "load"], 17) == {
        europe: "preproce…s_europe",
        america: "preproce…_america",
        "load": "load",
    }


def test_names_that_differ_in_their_middle_lose_another_part() -> None:
    large, small = (f"train_model_{size}_on_all_of_the_data" for size in ("large", "small"))
    assert list(shortened([large, small], 18).values()) == [
        "train_model_l…data",
        "train_model_s…data",
    ]


@given(names=NAMES, room=st.integers(6, 20), cut=st.integers(0, 12))
def test_names_fit_and_are_told_apart(names: list[str], room: int, cut: int) -> None:
    short = ShortNames(room)
    short.add(names[:cut])
    first = dict(short.forms)
    short.add(names)
    looks = short.forms
    assert looks.items() >= first.items()
    assert set(looks) == set(names)
    assert len(set(looks.values())) == len(looks)
    assert all(cell_len(look) <= room for look in looks.values())
    assert all(look == name for name, look in shortened(names, 100).items())


def test_labels_are_aligned_and_never_change() -> None:
    labels = StepLabels(12)
    labels.learn(["load", "train_a_model_of_the_north"])
    north, colour = labels.of("train_a_model_of_the_north")
    assert (north, colour) == ("train…_north", 35)
    assert labels.of("load") == ("load        ", 36)
    # A name that would look like another one, and appears later.
    again, _ = labels.of("train_another_model_north")
    assert len(again) == 12 and again != north
    assert labels.of("train_a_model_of_the_north") == (north, colour)


@pytest.mark.parametrize("name", ["step_{}", "a_long_name_of_a_step_{}", "{}_of_a_step_long" * 9])
def test_steps_that_appear_one_by_one_take_linear_time(name: str) -> None:
    def label(names: str) -> None:
        labels = StepLabels(16)
        for number in names.split():
            labels.of(name.format(number, *[""] * 9))

    assert_linear(label, lambda size: " ".join(map(str, range(size))), 100)


def test_most_of_a_line_is_for_its_text() -> None:
    assert [label_width(columns) for columns in (40, 80, 120, 300)] == [16, 24, 36, 40]
