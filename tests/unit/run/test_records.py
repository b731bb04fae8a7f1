"""Which run somebody means."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from modalrun.errors import NotFoundError, UsageError
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import RunRecord, StepRecord, id_prefix, run_argument, select


def run(digits: str, name: str) -> RunRecord:
    run_id = f"{digits}-0000-4000-8000-000000000000"
    return RunRecord(
        run_id, name, "training", "completed", datetime(2026, 11, 23, tzinfo=timezone.utc)
    )


ONE, TWO, THREE = run("abcd1111", "first"), run("abcd2222", "second"), run("12345678", "abcd")
RUNS = [ONE, TWO, THREE]


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("abcd", "abcd"),
        ("ABCD1", "abcd1"),
        ("abc", None),
        ("abcd1111-00", "abcd111100"),
        ("abcd1111-", "abcd1111"),
        ("abcd-1111", None),
        ("ab-cd", None),
        ("training", None),
        ("", None),
        (ONE.id, ONE.id.replace("-", "")),
        (ONE.id.replace("-", ""), ONE.id.replace("-", "")),
        (ONE.id + "0", None),
    ],
)
def test_what_may_be_the_beginning_of_an_id(text: str, digits: str | None) -> None:
    assert id_prefix(text) == digits


def test_a_whole_id_a_name_and_a_unique_beginning_mean_one_run() -> None:
    assert select(ONE.id, RUNS) is ONE
    assert select(ONE.id.replace("-", "").upper(), RUNS) is ONE
    assert select("second", RUNS) is TWO
    assert select("abcd1", RUNS) is ONE


def test_a_name_wins_over_the_beginning_of_an_id() -> None:
    assert select("abcd", RUNS) is THREE


def test_an_ambiguous_beginning_lists_the_candidates() -> None:
    with pytest.raises(NotFoundError) as raised:
        select("abcd", [ONE, TWO])
    assert "2 run ids" in raised.value.message
    assert ONE.id in raised.value.message and "second" in raised.value.message
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("text", "near"), [("secnd", TWO), ("irs", ONE), ("12355678", THREE), ("12345", THREE)]
)
def test_an_unknown_run_names_the_nearest(text: str, near: RunRecord) -> None:
    with pytest.raises(NotFoundError) as raised:
        select(text, [], RUNS)
    assert near.name in raised.value.message
    assert len(raised.value.message.splitlines()) == 2


def test_where_nothing_is_like_it_the_newest_are_listed() -> None:
    with pytest.raises(NotFoundError, match="The newest are:") as raised:
        select("zzz", [], RUNS)
    assert len(raised.value.message.splitlines()) == 1 + len(RUNS)


def test_nothing_is_near_where_there_are_no_runs() -> None:
    with pytest.raises(NotFoundError, match=r"^There is no run 'x'\.$"):
        select("x", [])


def test_run_may_be_left_out_on_a_terminal_only() -> None:
    assert run_argument(None, interactive=True) == "latest"
    assert run_argument(" latest ", interactive=False) == "latest"
    for text, interactive in ((None, False), ("", True), (" ", False)):
        with pytest.raises(UsageError, match="RUN is missing"):
            run_argument(text, interactive=interactive)


HINTS = {"beta": "add the file", "gamma": "add the other one"}


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("Step `gamma` failed: FileNotFoundError: b.csv", "add the other one"),
        ("Step `alpha` failed: KeyError: 'x'; 2 more steps failed.", "step `beta`: add the file"),
        (None, "step `beta`: add the file"),
    ],
)
def test_what_to_do_is_not_told_of_the_wrong_step(reason: str | None, told: str) -> None:
    metadata = RunMetadata("local", "pipeline", "app", "ap-1", "sb-1", hints=HINTS)
    failed = replace(ONE, status="failed", reason=reason, metadata=metadata)
    assert failed.next == told


@pytest.mark.parametrize(("status", "code"), [("failed", 137), ("completed", None)])
def test_the_exit_code_of_a_lost_sandbox_is_not_that_of_a_completed_step(
    status: str, code: int | None
) -> None:
    lost = StepMetadata("sb-1", exit_code=137, infrastructure_retries=1)
    assert StepRecord("train", status, metadata=lost).exit_code == code
