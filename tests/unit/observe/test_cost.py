"""What a run has cost."""

from decimal import Decimal

from modalrun.observe.cost import cost_details
from modalrun.plan.pricing import dollars
from modalrun.run.events import Idle, StepEvent
from modalrun.run.progress import RunProgress
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec

CPU = SandboxSpec(("x",), "im-1", Resources(cpu=1.0, memory=1024), 60)
GPU = SandboxSpec(("x",), "im-1", Resources(gpus=("H100", "T4"), cpu=1.0, memory=1024), 60)
SECOND = Decimal("0.00003942") + Decimal("0.00000667")


def planned(target: str) -> RunPlan:
    steps = (PlannedStep("train", sandbox=GPU),) if target == "modal" else ()
    return RunPlan(target, "p", RunSettings(app_name="app"), CPU, steps)  # type: ignore[arg-type]


def test_every_sandbox_counts_with_the_gpu_that_it_got() -> None:
    board = RunProgress(["train"])
    board.apply(StepEvent("train", "running", at=10, sandbox="sb-1", gpu="T4"))
    board.apply(StepEvent("train", "completed", at=1008))
    board.apply(Idle("train", "sb-1", 2.0, "T4"))
    lines = dict(cost_details(planned("modal"), board, None, 0, 2000))
    # 2000 s of the driver, 1000 s of the step: about $0.30, rounded up.
    amount = 2000 * SECOND + 1000 * (SECOND + Decimal("0.000164"))
    assert lines["cost"].startswith(f"about {dollars(amount)} (")
    assert lines["idle"] == "2.0 s in sandboxes that were kept warm, $0.0005"


def test_here_it_costs_nothing() -> None:
    ((label, text),) = cost_details(planned("local"), RunProgress([]), None, 0, 3600)
    assert (label, text[:39]) == ("cost", "nothing here; on Modal about $0.1660 (l")


def test_after_a_resume_it_says_that_only_a_part_is_counted() -> None:
    ((_, text),) = cost_details(planned("local"), RunProgress([]), None, 0, 3600, resumed=True)
    assert "on Modal about $0.1660 since the resume (list prices" in text


def test_no_price_no_figure() -> None:
    (found,) = cost_details(planned("modal"), RunProgress([]), "Z9000", 0, 10)
    assert found == ("cost", "unknown: no price for Z9000")
