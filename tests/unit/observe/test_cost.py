"""What a run has cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from modalrun.observe.cost import cost_details, spent
from modalrun.plan.pricing import LIST_PRICES, dollars
from modalrun.run.events import Idle
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import RunRecord, StepRecord
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec

CPU = SandboxSpec(("x",), "im-1", Resources(cpu=1.0, memory=1024), 60)
GPU = SandboxSpec(("x",), "im-1", Resources(gpus=("H100", "T4"), cpu=1.0, memory=1024), 60)
SECOND = Decimal("0.00003942") + Decimal("0.00000667")


def planned(target: str) -> RunPlan:
    steps = (PlannedStep("train", sandbox=GPU),) if target == "modal" else ()
    return RunPlan(target, "p", RunSettings(app_name="app"), CPU, steps)  # type: ignore[arg-type]


NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def recorded(target: str = "modal", gpu: str | None = None, seconds: float = 3600) -> RunRecord:
    """Return a run that was submitted, then waited for its image, and had a sandbox for a time."""
    known = RunMetadata(
        target,  # type: ignore[arg-type]
        "per_step",
        "app",
        "ap-1",
        "sb-1",
        gpu=gpu,
        cpu=1.0,
        memory=1024,
        requested=at(-50).timestamp(),
        created=NOON.timestamp(),
    )
    return RunRecord(
        "id", "name", "p", "completed", at(-100), at(-100), at(seconds), metadata=known
    )


def test_every_sandbox_counts_with_the_gpu_that_it_got_from_its_start() -> None:
    # It waited for its GPU, which nobody pays for, and imported ZenML.
    known = StepMetadata(
        "sb-2",
        gpu="T4",
        cpu=1.0,
        memory=1024,
        idle=2.0,
        requested=NOON.timestamp(),
        started=at(10).timestamp(),
    )
    train = StepRecord("train", "completed", start=at(15), end=at(1008), metadata=known)
    idle = [Idle("train", "sb-2", 2.0, "T4")]
    run = recorded(seconds=2000)
    lines = dict(cost_details(planned("modal"), run, [train], idle, at(9000)))
    # 2000 s of the driver, 1000 s of the step: about $0.30, rounded up.
    amount = 2000 * SECOND + 1000 * (SECOND + Decimal("0.000164"))
    assert lines["cost"].startswith(f"about {dollars(amount)} (")
    assert lines["idle"] == "2.0 s in sandboxes that were kept warm, $0.0005"
    # The report and `list` tell the same.
    assert spent(run, [train], at(99_999), LIST_PRICES).total == amount


def test_a_very_low_cost() -> None:
    ((_, text),) = cost_details(planned("modal"), recorded(seconds=0.001), [], [], at(9000))
    assert text.startswith("below $0.0001 (list prices")


def test_here_it_costs_nothing() -> None:
    ((label, text),) = cost_details(planned("local"), recorded("local"), [], [], at(9000))
    assert (label, text[:39]) == ("cost", "nothing here; on Modal about $0.1660 (l")


def test_after_a_resume_it_says_that_only_a_part_is_counted() -> None:
    run = recorded("local")
    assert run.metadata is not None
    run = replace(run, metadata=replace(run.metadata, earlier="sb-0"))
    found = cost_details(planned("local"), run, [], [], at(9000))
    assert "about $0.1660 without the run sandbox before the resume (list" in found[0][1]


def test_no_price_no_figure() -> None:
    (found,) = cost_details(planned("modal"), recorded(gpu="Z9000"), [], [], at(9000))
    assert found == ("cost", "unknown: no price for Z9000")
