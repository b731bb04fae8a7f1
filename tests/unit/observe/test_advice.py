"""What steps should ask for, by what they have used."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from modalrun.errors import NotFoundError
from modalrun.observe.advice import (
    INCOMPLETE,
    LOST,
    RUNNING,
    UNSTORED,
    Advice,
    StepAdvice,
    advise,
    cores_for,
    memory_for,
    read_advice,
)
from modalrun.run.failure import Failure
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.usage import StepUsage
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects

NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
FACTS = RunMetadata("modal", "per_step", "app", "ap-1", "sb-1", 600, cpu=0.5, memory=1024)
RUN = RunRecord(
    "run", "name", "using", "failed", NOON, NOON, NOON + timedelta(seconds=20), metadata=FACTS
)


def used(seconds: float, cpu: float, cores: float, peak: int, **more: int) -> StepUsage:
    found = StepUsage(NOON.timestamp(), seconds, cpu, cores, peak, mean_memory=peak)
    return replace(found, **more)


def attempt(
    name: str, usage: StepUsage | None, cpu: float = 2, memory: int = 2048, gpu: str | None = None
) -> StepRecord:
    seconds = usage.seconds + 1 if usage else 0.5
    return StepRecord(
        name,
        "completed",
        start=NOON,
        end=NOON + timedelta(seconds=seconds),
        metadata=StepMetadata("sb-2", gpu=gpu, cpu=cpu, memory=memory),
        usage=usage,
    )


RECORDED = {
    "computing": (
        *((3.1, 3.07, 0.99, 181), (3.2, 3.1, 1.0, 180), (3.1, 3.09, 1.01, 181)),
        *((3.9, 3.1, 0.97, 180), (3.1, 3.08, 0.98, 181)),
    ),
    "hoarding": (
        *((2.9, 0.42, 0.17, 879), (2.8, 0.4, 0.2, 881), (2.9, 0.4, 0.19, 879)),
        *((2.8, 0.41, 0.17, 880), (3.0, 0.42, 0.18, 878)),
    ),
    "sleeping": ((2.5, 0.1, 0.04, 180),) * 5,
    "forking": (
        *((2.9, 3.3, 1.67, 389), (3.0, 3.3, 1.9, 388), (2.9, 3.3, 1.71, 389)),
        *((2.9, 3.3, 1.66, 392), (3.1, 3.3, 1.7, 389)),
    ),
}
"""Seconds, CPU seconds, peak cores and peak memory of five runs (`e2e/pipelines/using.py`)."""


def of(advice: Advice, step: str | None) -> StepAdvice:
    (found,) = [one for one in advice.steps if one.step == step]
    return found


def test_five_recorded_runs() -> None:
    runs = [replace(RUN, id=str(number)) for number in range(5)]
    attempts = {
        run.id: [attempt(name, used(*figures[n])) for name, figures in RECORDED.items()]
        for n, run in enumerate(runs)
    }
    advice = advise(runs, attempts)
    suggested = {
        one.step: (one.cpu.suggestion, one.memory.suggestion, one.runs) for one in advice.steps
    }
    assert suggested == {
        "computing": (1, 256, 5),
        "hoarding": (0.25, 1536, 5),
        "sleeping": (0.125, 256, 5),
        "forking": (2, 512, 5),
    }
    for one in advice.steps:
        assert one.memory.suggestion is not None
        assert one.memory.suggestion >= one.memory.peak * 1.25
    hoarding = of(advice, "hoarding")
    # 3.88 s in the mean: 1.75 cores and half a GiB less, by the list prices.
    expected = Decimal("3.88") * (Decimal("1.75") * Decimal("0.00003942") + Decimal("0.000003335"))
    assert hoarding.saved == pytest.approx(expected)
    assert (hoarding.memory.asked, hoarding.memory.peak, hoarding.memory.used) == (2048, 881, 43)
    assert of(advice, "computing").cpu.peak == 1
    assert hoarding.cpu.mean == pytest.approx(0.14, abs=0.01)


@pytest.mark.parametrize(
    ("peak", "asked", "suggestion"),
    [
        (0.02, 0.5, 0.125),
        (0.5, 4, 0.75),
        (0.89, 4, 1.5),
        (0.95, 4, 1),
        (1.02, 4, 1.5),
        (1.2, 4, 1.5),
        (1.95, 8, 2),
        (3.5, 4, 6),
        (100, 16, 100),
        (0.98, 0.5, 1),
        # Enough as it is, though no value that people write.
        (2.2, 2.9, 2.9),
    ],
)
def test_cores(peak: float, asked: float, suggestion: float) -> None:
    assert cores_for(peak, asked) == suggestion


@pytest.mark.parametrize(
    ("peak", "asked", "suggestion"),
    [
        (10, 1024, 256),
        (993, 1024, 1536),
        (815, 1024, 1024),
        (820, 1024, 1536),
        (2304, 32768, 3072),
        (2500, 3500, 3500),
        (300_000, 16_384, 393_216),
    ],
)
def test_memory(peak: float, asked: float, suggestion: int) -> None:
    assert memory_for(peak, asked) == suggestion


def test_a_step_that_needs_more() -> None:
    advice = advise([RUN], {"run": [attempt("hog", used(9, 1, 0.1, 993), 0.25, 1024)]})
    hog = of(advice, "hog")
    assert hog.memory.raised and not hog.cpu.raised
    assert (hog.memory.used, hog.memory.suggestion) == (97, 1536)
    assert hog.saved is not None
    assert hog.saved < 0 or hog.cpu.suggestion == 0.125


def test_the_steps_of_a_pipeline_run_share_their_sandbox() -> None:
    first = used(10, 9, 0.95, 400, mean_memory=300)
    beside = replace(first, began=first.began + 5, peak_memory=700, mean_memory=700)
    after = replace(first, began=first.began + 30, peak_memory=900)
    shared = replace(RUN, metadata=replace(FACTS, mode="pipeline", cpu=4, memory=8192))
    steps = [
        replace(attempt(name, usage), metadata=None)
        for name, usage in (("first", first), ("beside", beside), ("after", after))
    ]
    advice = advise([shared], {"run": steps})
    whole = advice.steps[0]
    assert (whole.step, whole.memory.peak, whole.memory.suggestion) == (None, 1100, 1536)
    assert (whole.cpu.peak, whole.cpu.suggestion) == (1.9, 2)
    assert whole.cpu.mean == pytest.approx(27 / 20)
    assert whole.saved is not None and whole.saved > 0
    assert [one.saved for one in advice.steps[1:]] == [None, None, None]
    assert of(advice, "beside").memory.suggestion is None


SHARED = replace(RUN, metadata=replace(FACTS, mode="pipeline", cpu=4, memory=8192))


def inline(name: str, usage: StepUsage | None, seconds: float = 0) -> StepRecord:
    found = replace(attempt(name, usage), metadata=None)
    return replace(found, end=NOON + timedelta(seconds=seconds)) if seconds else found


def test_inline_steps_beside_one_another_have_the_figures_of_their_process() -> None:
    # Three of them, as recorded.
    one = replace(used(11.2, 9.4, 0.84, 1091), pid=7)
    later = replace(one, began=one.began + 0.2)
    own = replace(one, pid=8, peak_memory=100, peak_cores=0.5)
    advice = advise([SHARED], {"run": [inline("a", one), inline("b", later), inline("c", one)]})
    whole = of(advice, None)
    assert (whole.cpu.peak, whole.memory.peak) == (0.84, 1091)
    assert whole.cpu.mean == pytest.approx(9.4 * 11.4 / 11.2 / 20, abs=0.01)
    assert whole.memory.mean == pytest.approx(1091 * 11.4 / 20, abs=1)
    # One after the other, and beside another process.
    after = replace(one, began=one.began + 20, peak_memory=500)
    advice = advise([SHARED], {"run": [inline("a", one), inline("b", after), inline("c", own)]})
    assert (of(advice, None).cpu.peak, of(advice, None).memory.peak) == (1.34, 1191)


STOPPED = Failure("The run was stopped by force.")
OUT_OF_MEMORY = Failure("The sandbox ran out of memory.")
RAISED = Failure("The sandbox ran out of memory.", "ValueError")


@pytest.mark.parametrize(
    ("change", "seconds", "why"),
    [
        ({"status": "stopped", "failure": STOPPED}, 62, LOST),
        ({"status": "stopped", "failure": STOPPED}, 0.5, None),
        ({"status": "failed", "failure": RAISED}, 1.5, None),
        ({"status": "completed"}, 1.5, None),
        ({"status": "completed"}, 62, UNSTORED),
        ({"status": "cached"}, 62, None),
        ({"status": "running", "end": None}, 62, RUNNING),
    ],
)
def test_nothing_is_lowered_while_a_step_is_not_measured(
    change: dict[str, Any], seconds: float, why: str | None
) -> None:
    short = inline("short", used(2.3, 0.1, 0.04, 180))
    long = replace(inline("longbar", None, seconds), **change)
    own = replace(long, name="own", metadata=attempt("own", None).metadata)
    measured = attempt("own", used(2.3, 0.1, 0.04, 180))
    for advice, step in (
        (advise([SHARED], {"run": [short, long]}), None),
        (advise([RUN], {"run": [own, measured]}), "own"),
    ):
        found = of(advice, step)
        assert list(advice.missing.values()) == ([why] if why else [])
        suggested = (found.cpu.suggestion, found.memory.suggestion)
        assert suggested == ((found.cpu.asked, found.memory.asked) if why else (0.125, 256))
        assert found.kept == bool(why)


def test_the_mean_of_a_run_that_goes_on_is_that_of_what_was_measured() -> None:
    goes_on = replace(SHARED, status="running", end=None)
    step = inline("done", used(10, 5, 0.9, 400))
    whole = of(advise([goes_on], {"run": [step]}), None)
    assert (whole.cpu.mean, whole.memory.mean) == (0.5, 400)
    # With another run that has ended, the time of that one counts.
    two = [goes_on, replace(SHARED, id="ended")]
    whole = of(advise(two, {"run": [step], "ended": [step]}), None)
    assert (whole.cpu.mean, whole.memory.mean) == (0.25, 200)


def test_time_before_an_isolated_step_begins_does_not_count() -> None:
    facts = replace(StepMetadata("sb"), begun=NOON.timestamp() + 60)
    waited = replace(attempt("a", None), end=NOON + timedelta(seconds=61), metadata=facts)
    advice = advise([RUN], {"run": [waited]})
    assert (advice.missing, advice.unmeasured) == ({}, ("a",))


def test_a_step_whose_result_was_cached_is_not_called_short() -> None:
    cached = replace(attempt("load", None), status="cached")
    advice = advise([RUN], {"run": [cached, attempt("a", used(2, 1, 0.1, 180))]})
    assert (advice.missing, advice.unmeasured) == ({}, ())


def test_a_sandbox_that_ran_out_of_memory_needs_twice_as_much() -> None:
    lost = replace(inline("hog", None, 62), status="failed", failure=OUT_OF_MEMORY)
    whole = of(advise([SHARED], {"run": [lost, inline("a", used(2, 1, 0.1, 180))]}), None)
    assert (whole.memory.suggestion, whole.cpu.suggestion, whole.ran_out) == (16384, 4, True)
    own = replace(attempt("hog", None), end=lost.end, status="failed", failure=OUT_OF_MEMORY)
    advice = advise([RUN], {"run": [own]})
    found = of(advice, "hog")
    assert (found.runs, found.memory.suggestion, found.cpu.suggestion) == (0, 4096, 2)
    assert of(advise([SHARED], {"run": [lost]}), None).memory.suggestion == 16384
    whole_run = Failure("The run sandbox ended (out of memory, exit code 137).")
    measured = replace(lost, failure=whole_run, usage=used(2, 1, 0.1, 180))
    assert of(advise([SHARED], {"run": [measured]}), None).memory.suggestion == 16384
    # It asks for more by now, and that was enough.
    newer = replace(RUN, id="newer")
    enough = attempt("hog", used(9, 1, 0.1, 3000), memory=6144)
    measured = replace(own, usage=used(9, 1, 0.1, 2040))
    advice = advise([newer, RUN], {"newer": [enough], "run": [measured]})
    assert of(advice, "hog").memory.suggestion == 4096
    # What the driver has asked for says nothing of a step whose own sandbox is not known.
    unknown = replace(own, metadata=None)
    other = attempt("hog", used(9, 1, 0.1, 180), memory=256)
    assert of(advise([RUN], {"run": [unknown, other]}), "hog").memory.suggestion == 256
    # What an exception says does not count, and what the rest of the step needs is not known.
    raised = replace(own, failure=RAISED, usage=used(9, 1, 0.1, 180))
    advice = advise([RUN], {"run": [raised]})
    assert of(advice, "hog").memory.suggestion == 2048
    assert advice.missing == {"hog": INCOMPLETE}


def test_inline_steps_have_no_sandbox_to_ask_for() -> None:
    steps = [inline("inline", used(9, 1, 0.1, 993)), attempt("own", used(9, 1, 0.1, 300))]
    advice = advise([RUN], {"run": steps})
    found = of(advice, "inline")
    assert (found.saved, found.memory.suggestion, found.memory.asked) == (None, None, 1024)
    assert of(advice, "own").saved is not None


def test_gpus() -> None:
    steps = [
        attempt("train", used(100, 100, 1, 2000, gpu=4), gpu="A100"),
        attempt("tune", used(100, 100, 1, 2000, gpu=80), gpu="A100"),
        attempt("load", used(100, 100, 1, 2000)),
    ]
    advice = advise([RUN], {"run": steps})
    assert [one.gpu_is_idle for one in advice.steps] == [True, False, False]
    assert [one.gpu_busy for one in advice.steps] == [4, 80, None]


def test_the_last_request_counts_and_every_attempt_of_a_step() -> None:
    older = replace(RUN, id="older")
    attempts = {
        "run": [attempt("hog", used(2, 1, 0.5, 300), 1, 1024)],
        "older": [
            attempt("hog", replace(used(2, 1, 0.5, 700), killed=True), 8, 512),
            attempt("hog", replace(used(2, 1, 0.5, 100), began=NOON.timestamp() + 9), 8, 512),
            attempt("gone", None),
        ],
    }
    advice = advise([RUN, older], attempts)
    hog = of(advice, "hog")
    assert (hog.runs, hog.cpu.asked, hog.memory.asked, hog.memory.peak) == (2, 1, 1024, 700)
    assert advice.unmeasured == ("gone",)


def test_runs_in_another_mode_do_not_count() -> None:
    older = replace(RUN, id="older", metadata=replace(FACTS, mode="pipeline"))
    attempts = {"run": [attempt("a", used(2, 1, 0.5, 300))], "older": [attempt("b", None)]}
    advice = advise([RUN, older], attempts)
    assert [run.id for run in advice.runs] == ["run"]
    assert advice.unmeasured == ()


@pytest.fixture
def zenml() -> FakeZenML:
    zenml = FakeZenML(Effects())
    zenml.run = replace(RUN, id="aaaa0000-0000-4000-8000-000000000000")
    zenml.others = [
        replace(RUN, id="bbbb0000-0000-4000-8000-000000000000", pipeline="other"),
        replace(RUN, id="cccc0000-0000-4000-8000-000000000000"),
    ]
    zenml.steps = (attempt("a", used(2, 1, 0.5, 300)),)
    return zenml


@pytest.mark.parametrize(
    ("argument", "limit", "runs"),
    [
        ("using", 5, "ac"),
        ("using", 1, "a"),
        ("latest", 5, "ac"),
        ("cccc", 5, "c"),
        ("other", 5, "b"),
    ],
)
def test_which_runs_are_looked_at(zenml: FakeZenML, argument: str, limit: int, runs: str) -> None:
    advice = read_advice(argument, limit, zenml=zenml)
    assert "".join(run.id[0] for run in advice.runs) == runs
    assert [one.runs for one in advice.steps] == [len(runs)]


def test_a_run_without_a_sandbox(zenml: FakeZenML) -> None:
    zenml.run, zenml.others = replace(zenml.run, metadata=None), []
    with pytest.raises(NotFoundError, match="no sandbox is known of 'using'"):
        read_advice("using", 5, zenml=zenml)
    zenml.others = [replace(zenml.run, id="cccc0000-0000-4000-8000-000000000000")]
    with pytest.raises(NotFoundError, match="of the last 2 runs of 'using'") as caught:
        read_advice("using", 5, zenml=zenml)
    assert "'--runs' looks at more" in str(caught.value.hint)
    with pytest.raises(NotFoundError, match="no run 'dddd'"):
        read_advice("dddd", 5, zenml=zenml)
