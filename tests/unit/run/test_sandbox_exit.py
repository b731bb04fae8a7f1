"""What the end of a step sandbox means."""

from __future__ import annotations

import pytest

from modalrun.run.sandbox_exit import LOST, End, Kind, Status, by_driver, read_end, refused


@pytest.mark.parametrize(
    ("code", "status", "kind", "infrastructure"),
    [
        (0, Status.SUCCESS, Kind.COMPLETED, False),
        (0, None, Kind.COMPLETED, False),
        (1, Status.FAILURE, Kind.FAILED, False),
        (3, Status.FAILURE, Kind.FAILED, False),
        (71, Status.FAILURE, Kind.OUT_OF_MEMORY, False),
        (137, Status.KERNEL_OOM_KILL, Kind.OUT_OF_MEMORY, False),
        (137, Status.MEMORY_MANAGER_EVICTION, Kind.OUT_OF_MEMORY, False),
        (124, Status.TIMEOUT, Kind.TIMED_OUT, False),
        (124, Status.FAILURE, Kind.TIMED_OUT, False),
        (137, Status.TERMINATED, Kind.TERMINATED, True),
        (137, Status.FAILURE, Kind.TERMINATED, True),
        (143, Status.FAILURE, Kind.PREEMPTED, True),
        (1, Status.INTERNAL_FAILURE, Kind.PREEMPTED, True),
        (0, Status.INIT_FAILURE, Kind.NOT_STARTED, True),
        (70, Status.FAILURE, Kind.UNRECORDED, True),
        # Modal may have words of tomorrow.
        (1, 99, Kind.FAILED, False),
    ],
)
def test_ends(code: int, status: int | None, kind: Kind, infrastructure: bool) -> None:
    end = read_end(code, status)
    assert (end.kind, end.is_infrastructure, end.exit_code) == (kind, infrastructure, code)
    assert end.reason.endswith(".")


def test_what_modal_says_is_passed_on() -> None:
    assert read_end(1, Status.INIT_FAILURE, "no such file").reason.endswith("no such file")


def test_a_sandbox_that_is_unknown_is_started_again_and_a_refused_one_is_not() -> None:
    assert LOST.is_infrastructure
    assert not refused("why").is_infrastructure


def test_modals_word_is_left_out_where_it_says_nothing_new() -> None:
    end = read_end(137, Status.TERMINATED, "The sandbox was terminated.")
    assert end.reason == "The sandbox was terminated from outside."
    end = read_end(137, Status.TERMINATED, "Its app was stopped.")
    assert end.reason == "The sandbox was terminated from outside. Its app was stopped."


@pytest.mark.parametrize("kind", Kind)
def test_what_the_driver_has_ended_was_not_ended_from_outside(kind: Kind) -> None:
    own = kind not in {Kind.TERMINATED, Kind.PREEMPTED, Kind.NOT_STARTED, Kind.LOST}
    end = by_driver(End(kind, 137, "Modal's reason."), "Ours.")
    assert end == End(kind, 137, "Modal's reason." if own else "Ours.")
