"""What a run has cost, from the time that its sandboxes were there. Pure."""

from __future__ import annotations

from decimal import Decimal

from modalrun.plan.pricing import LIST_PRICES, dollars, spent
from modalrun.run.progress import RunProgress
from modalrun.run.run_plan import RunPlan


def spending(
    plan: RunPlan,
    board: RunProgress,
    gpu: str | None,
    began: float,
    now: float,
    *,
    resumed: bool = False,
) -> list[tuple[str, str]]:
    """Labels and values for a summary: the cost by list prices, and seconds of waiting.

    Args:
        plan: What was asked for.
        board: With the times of the steps' own sandboxes.
        gpu: The run sandbox's GPU.
        began: When the run sandbox came, in seconds since the epoch.
        now: When it ended.
        resumed: Whether an earlier driver has run a part of it, which isn't counted here.
    """
    sandboxes = {step.name: step.sandbox for step in plan.steps}
    amounts = [spent(plan.run_sandbox, gpu, now - began, LIST_PRICES)]
    for used in board.usage.values():
        sandbox = sandboxes.get(used.step)
        if sandbox is not None:
            amounts.append(
                spent(sandbox, used.gpu, (used.ended or now) - used.started, LIST_PRICES)
            )
    known = [amount for amount in amounts if amount is not None]
    lines = []
    if len(known) == len(amounts):
        about = f"about {dollars(sum(known, Decimal(0)))}"
        about += " since the resume" if resumed else ""
        prices = f"list prices of {LIST_PRICES.as_of}"
        if plan.target == "local":
            lines.append(("cost", f"nothing here; on Modal {about} ({prices})"))
        else:
            lines.append(("cost", f"{about} ({prices}, by what was requested)"))
    if board.wasted:
        lines.append(("waited", f"{board.wasted:.1f} s in sandboxes that were created early"))
    return lines
