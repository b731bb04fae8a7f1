"""What `modalrun plan` and `modalrun compile` do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.plan import deployment_file, pricing
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.model import Plan
from modalrun.plan.prices import LIST_PRICES
from modalrun.plan.pricing import Cost
from modalrun.plan.stack import StackFacts
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import prepare
from modalrun.zenml_api import process


@dataclass(frozen=True)
class PricedPlan:
    """A plan with its price.

    Attributes:
        plan: The sandboxes.
        cost: What they can cost.
        stack: The stack that the deployment is compiled for.
        problems: Why the stack can't be used with the target; empty if it can.
    """

    plan: Plan
    cost: Cost
    stack: StackFacts
    problems: tuple[str, ...]


def plan_spec(spec: RunSpec) -> PricedPlan:
    """Plan a spec and price the plan; nothing is created.

    Raises:
        ModalrunError: The spec, the pipeline, the stack or a setting is wrong, or ZenML's server
            refuses or is not there.
    """
    prepared = prepare.prepare(spec)
    cost = pricing.cost(prepared.plan, LIST_PRICES)
    return PricedPlan(prepared.plan, cost, prepared.stack, prepared.problems)


def compile_spec(spec: RunSpec, path: Path) -> None:
    """Compile the pipeline of a spec to a deployment file.

    Raises:
        ModalrunError: As for `plan_spec`; and the file can't be written.
    """
    if spec.deployment is not None:
        raise spec.error(
            ("deployment",),
            "this is compiled already; compile needs a 'pipeline'.",
            "Override settings where you plan or submit: '--set', or a run spec with 'deployment'.",
        )
    if not path.resolve().parent.is_dir():
        raise UsageError(f"There is no folder {path.resolve().parent} to write {path.name} to.")
    with process.zenml_process(spec.source_root):
        compiled = prepare.load(spec)
        # A plan that can't be made is better found now.
        prepare.prepared(compiled.deployment, compiled.facts, spec)
        from modalrun.zenml_api.compile import VERSION

        deployment_file.write(
            path,
            DeploymentFile(
                deployment=compiled.deployment,
                snapshot=compiled.snapshot.model_dump(mode="json"),
                stack=compiled.facts,
                zenml_version=VERSION,
                python_version=prepare.this_python(),
                source_root=os.path.relpath(spec.source_root, path.resolve().parent),
                source_code=compiled.source_code,
            ),
        )
