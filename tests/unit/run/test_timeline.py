"""The phases of a run's steps, from records."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.status import SandboxState, derive_status
from modalrun.run.timeline import Span, Timeline, levels, timeline_of

NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
RUNNING = SandboxState("running")


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def moment(second: float) -> float:
    return at(second).timestamp()


METADATA = RunMetadata("modal", "per_step", "app", "ap-1", "sb-1", 600, requested=moment(5))
RUN = RunRecord("id", "name", "training", "completed", NOON, NOON, at(60), metadata=METADATA)
GOING = replace(RUN, status="running", end=None)


def step(name: str, begin: float, end: float | None, **more: object) -> StepRecord:
    status = more.pop("status", "completed" if end is not None else "running")
    return StepRecord(
        name,
        str(status),
        start=at(begin),
        end=None if end is None else at(end),
        **more,  # type: ignore[arg-type]
    )


def known(*moments: float | None, **more: float | None) -> StepMetadata:
    requested, started, begun = [None if m is None else moment(m) for m in moments]
    return StepMetadata(
        "sb-2",
        requested=requested,
        started=started,
        begun=begun,
        **more,  # type: ignore[arg-type]
    )


def derived(
    run: RunRecord, *attempts: StepRecord, missing: tuple[StepRecord, ...] = (), now: float = 90
) -> Timeline:
    last = {one.name: one for one in attempts}
    view = derive_status(run, [*last.values(), *missing], RUNNING)
    return timeline_of(view, attempts, moment(now))


def shown(spans: tuple[Span, ...]) -> list[str]:
    start = NOON.timestamp()
    return [
        f"{one.attempt} {one.phase} {one.begin - start:g}-{one.end - start:g}"
        f"{' failed' * one.failed}{' open' * one.open}"
        for one in spans
    ]


def test_a_step_in_a_sandbox_of_its_own_has_all_phases() -> None:
    load = step("load", 10, 20, metadata=known(8, 9, 10))
    train = step("train", 27, 50, metadata=known(23, 25, 27), upstream=("load",))
    found = derived(RUN, load, train)
    assert shown(found.run) == ["1 image 0-5", "1 sandbox start 5-8", "1 run 8-60"]
    assert shown(found.steps[0].spans) == [
        "1 sandbox start 8-9",
        "1 import 9-10",
        "1 run 10-20",
    ]
    assert shown(found.steps[1].spans) == [
        "1 waiting 20-23",
        "1 sandbox start 23-25",
        "1 import 25-27",
        "1 run 27-50",
    ]
    assert (found.begin, found.end, found.over) == (moment(0), moment(60), True)


def test_each_attempt_has_its_phases_in_the_order_of_their_numbers() -> None:
    failed = step("load", 10, 20, status="retried", metadata=known(8, 9, 10))
    again = step("load", 33, 40, attempt=2, metadata=known(30, 32, 33))
    (load,) = derived(RUN, again, failed).steps
    # The view has the last record; the timeline sorts them itself.
    assert [one.attempt for one in load.attempts] == [1, 2]
    assert shown(load.spans) == [
        "1 sandbox start 8-9",
        "1 import 9-10",
        "1 run 10-20 failed",
        "2 retry 20-30",
        "2 sandbox start 30-32",
        "2 import 32-33",
        "2 run 33-40",
    ]


def test_a_step_waits_until_a_sandbox_that_was_kept_warm_is_asked_for() -> None:
    load = step("load", 10, 20, metadata=known(8, 9, 10))
    train = step("train", 24, 30, metadata=known(23, 23.5, 24, idle=1.5), upstream=("load",))
    spans = derived(RUN, load, train).steps[1].spans
    assert shown(spans)[:2] == ["1 waiting 20-23", "1 sandbox start 23-23.5"]


def test_what_was_lost_is_neither_a_wait_nor_a_retry() -> None:
    load = step("load", 10, 20, metadata=known(8, 9, 10))
    lost = known(45, 46, 47, lost=moment(22), infrastructure_retries=1, idle=15)
    train = step("train", 24, 50, metadata=lost, upstream=("load",), status="retried")
    other = known(75, 76, 77, lost=moment(55), infrastructure_retries=2)
    again = step("train", 57, 80, attempt=2, metadata=other, upstream=("load",))
    found = derived(RUN, load, train, again)
    assert shown(found.steps[1].spans) == [
        "1 waiting 20-22",
        "1 lost 22-45",
        "1 sandbox start 45-46",
        "1 import 46-47",
        "1 run 47-50 failed",
        "2 retry 50-55",
        "2 lost 55-75",
        "2 sandbox start 75-76",
        "2 import 76-77",
        "2 run 77-80",
    ]


def test_a_sandbox_that_was_lost_before_it_stored_anything_has_begun_the_record() -> None:
    lost = known(25, 28, 30, infrastructure_retries=1)
    spans = derived(RUN, step("load", 10, 40, metadata=lost)).steps[0].spans
    assert shown(spans)[:2] == ["1 lost 10-25", "1 sandbox start 25-28"]
    # A record that its own process has made is younger than its sandbox.
    later = step("load", 30, 40, metadata=lost)
    assert shown(derived(RUN, later).steps[0].spans)[0] == "1 sandbox start 25-28"


def test_a_run_has_started_with_a_sandbox_that_was_lost() -> None:
    load = step("load", 10, 40, metadata=known(25, 28, 30, lost=moment(8)))
    found = derived(RUN, load)
    assert shown(found.run)[-1] == "1 run 8-60"
    assert shown(found.steps[0].spans)[0] == "1 lost 8-25"


def test_without_recorded_moments_a_step_only_runs() -> None:
    pipeline = replace(RUN, metadata=replace(METADATA, mode="pipeline", requested=None))
    load, train = step("load", 10, 20), step("train", 21, 30, upstream=("load",))
    found = derived(pipeline, load, train)
    assert shown(found.run) == ["1 sandbox start 0-10", "1 run 10-60"]
    assert shown(found.steps[1].spans) == ["1 waiting 20-21", "1 run 21-30"]


def test_what_goes_on_is_open_and_ends_now() -> None:
    load = step("load", 10, 20, metadata=known(8, 9, 10))
    train = step("train", 27, None, metadata=known(23, 25, 27), upstream=("load",))
    other = StepRecord("other", "not run", upstream=("load",))
    last = StepRecord("last", "not run", upstream=("train",))
    found = derived(GOING, load, train, missing=(other, last))
    assert shown(found.run)[-1] == "1 run 8-90 open"
    _, running, waiting, blocked = found.steps
    assert shown(running.spans)[-1] == "1 run 27-90 open"
    assert shown(waiting.spans) == ["1 waiting 20-90 open"]
    assert blocked.spans == ()


def test_a_step_whose_sandbox_is_asked_for_waits_no_more() -> None:
    load = step("load", 10, 20, metadata=known(8, 9, 10))
    train = StepRecord("train", "starting", upstream=("load",))
    assert shown(derived(GOING, load, missing=(train,)).steps[1].spans) == [
        "1 sandbox start 20-90 open"
    ]


def test_a_step_between_two_attempts_is_being_retried() -> None:
    failed = step("load", 10, 20, status="retrying", metadata=known(8, 9, 10))
    spans = derived(GOING, failed).steps[0].spans
    assert shown(spans)[-2:] == ["1 run 10-20 failed", "2 retry 20-90 open"]


@pytest.mark.parametrize("status", ["cached", "skipped"])
def test_results_of_earlier_runs_have_no_phases(status: str) -> None:
    # Their metadata are those of the run that they are from.
    taken = step("load", -9000, -8000, status=status, metadata=known(-9005, -9003, -9001))
    train = step("train", 12, 30, metadata=known(8, 9, 12), upstream=("load",))
    found = derived(RUN, taken, train)
    assert found.steps[0].spans == ()
    assert shown(found.steps[1].spans)[0] == "1 sandbox start 8-9"


def test_a_run_that_never_started_has_an_empty_timeline() -> None:
    run = replace(RUN, status="failed", metadata=None, end=at(3))
    found = derived(run, missing=(StepRecord("load", "not run"),))
    assert (found.run, found.steps[0].spans, found.end) == ((), (), moment(3))


def test_the_steps_of_a_lost_run_end_with_its_timeout() -> None:
    load = step("load", 10, None, metadata=known(8, 9, 10))
    view = derive_status(GOING, [load], SandboxState("ended", read_exit(137)))
    found = timeline_of(view, [load], moment(99_999))
    assert shown(found.steps[0].spans)[-1] == "1 run 10-600"
    assert found.over


def test_clocks_that_disagree_give_no_negative_phase() -> None:
    load = step("load", 10, 20, metadata=known(8, 9, 10))
    train = step("train", 19, 30, metadata=known(22, 18, 19), upstream=("load",))
    spans = derived(RUN, load, train).steps[1].spans
    assert shown(spans) == ["1 waiting 20-22", "1 run 22-30"]


def test_attempts_say_what_a_step_of_a_dynamic_pipeline_waits_for() -> None:
    load, train = step("load", 10, 20), step("train", 25, 30, upstream=("load",))
    view = derive_status(RUN, [load, replace(train, upstream=())], RUNNING)
    found = timeline_of(view, [load, train], moment(90)).steps[1]
    assert found.step.upstream == ("load",)
    assert shown(found.spans) == ["1 waiting 20-25", "1 run 25-30"]


def test_without_a_sandbox_a_run_has_no_phase() -> None:
    resumes = [moment(40), moment(70)]
    run = replace(
        RUN, end=at(90), metadata=replace(METADATA, requested=resumes[-1], resumes=resumes)
    )
    # The first driver is lost while "long" runs, the second one pauses the run.
    load, long = step("load", 10, 20), step("long", 12, 50, metadata=known(11, 11.5, 12))
    train, last = step("train", 45, 55), step("last", 76, 85)
    assert shown(derived(run, load, long, train, last).run) == [
        "1 sandbox start 0-10",
        "1 run 10-20",
        "1 sandbox start 40-45",
        "1 run 45-55",
        "1 sandbox start 70-76",
        "1 run 76-90",
    ]
    paused = replace(run, status="paused", end=None)
    view = derive_status(paused, [load, long, train, last], SandboxState("ended", read_exit(0)))
    found = timeline_of(view, [load, long, train, last], moment(99))
    assert (shown(found.run)[-1], found.end) == ("1 run 76-85", moment(85))
    # It takes over what runs, and nothing new begins.
    adopted = derived(run, load, replace(long, end=at(80)))
    assert shown(adopted.run)[1:] == ["1 run 10-20", "1 run 70-90"]


def test_the_levels_of_a_graph() -> None:
    steps = [
        StepRecord("a", "completed"),
        StepRecord("b", "completed", upstream=("a",)),
        StepRecord("c", "completed", upstream=("a", "b", "deleted")),
        StepRecord("d", "completed"),
    ]
    assert levels(steps) == {"a": 0, "b": 1, "c": 2, "d": 0}
