"""Say in one line what the last runs of a planned pipeline have used, for `plan`."""

from __future__ import annotations

import shlex
from decimal import Decimal

from modalrun.errors import ModalrunError
from modalrun.observe.advice import Quantity, StepAdvice, advise
from modalrun.plan.model import Plan
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

_RUNS, _ATTEMPTS = 5, 20
"""How many runs and steps of them to read at most: 3 ms each, after 0.13 s for the first."""


def used_before(plan: Plan, *, zenml: ZenMLGateway = ZENML) -> str | None:
    """Say which step's use differs most from what it asks for.

    Returns:
        None if nothing is known, nothing is to be changed, or it would take long or can't be read.
    """
    # A dynamic pipeline may have run any number of steps.
    limit = 0 if plan.dynamic else min(_RUNS, _ATTEMPTS // max(1, len(plan.steps)))
    if not limit:
        return None
    try:
        found = zenml.newest_runs(limit=limit, pipeline=plan.pipeline)
        runs = [run for run in found if run.metadata is not None]
        advice = advise(runs, zenml.step_attempts(runs)) if runs else None
    except ModalrunError:
        return None
    if advice is None or advice.mode != plan.settings.mode:
        return None
    changed = [one for one in advice.steps if _quantity(plan, one)]
    if not changed:
        return None
    most = max(changed, key=lambda one: abs(one.saved or Decimal(0)))
    count = len(advice.runs)
    when = f"the last {count} runs" if count > 1 else "the last run"
    command = f"modalrun advise {shlex.quote(plan.pipeline)}"
    return f"{most.step or 'all steps'} used at most {_quantity(plan, most)} in {when}: {command}"


def _quantity(plan: Plan, one: StepAdvice) -> str | None:
    """Return the use of the quantity that is to be changed; None if none is, or has been since."""
    steps = {step.name: step.sandbox for step in plan.steps}
    sandbox = plan.run_sandbox if one.step is None else steps.get(one.step)
    if sandbox is None or one.saved is None or not one.runs:
        return None
    if one.memory.changed and one.memory.asked == sandbox.resources.memory:
        return _mib(one.memory)
    if one.cpu.changed and one.cpu.asked == sandbox.resources.cpu:
        return f"{one.cpu.peak:.3g} of {one.cpu.asked:g} cores"
    return None


def _mib(memory: Quantity) -> str:
    if memory.asked < 1024:
        return f"{memory.peak:.0f} of {memory.asked:.0f} MiB"
    return f"{memory.peak / 1024:.1f} of {memory.asked / 1024:g} GiB"
