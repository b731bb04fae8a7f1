"""What `modalrun plan` and `modalrun compile` do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from modalrun.errors import ModalrunError, UsageError
from modalrun.plan import deployment_file, pricing
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.planner import Plan
from modalrun.plan.prices import LIST_PRICES, PriceTable
from modalrun.plan.pricing import Cost
from modalrun.plan.stack import StackFacts
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import prepare
from modalrun.submit.prepare import Prepared
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
    cost = pricing.cost(prepared.plan, _prices(prepared))
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
        from modalrun.zenml_api.compiling.compile import VERSION

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


def account_prices(rates: object) -> PriceTable:
    """The prices of a Modal account where it gives them, else the list prices."""
    today = datetime.now(timezone.utc).date().isoformat()
    own = pricing.account_rates(rates, LIST_PRICES, today) if isinstance(rates, dict) else None
    return own or LIST_PRICES


def _prices(prepared: Prepared) -> PriceTable:
    """Modal is asked only where there is a token to ask with; a plan never fails for its prices."""
    has_token = prepared.credentials is not None or _is_configured()
    if prepared.plan.target == "local" or not has_token:
        return LIST_PRICES
    from modalrun.modal_api import Connection

    try:
        connection = Connection(prepared.plan.target, credentials=prepared.credentials)
        return account_prices(connection.rates())
    except ModalrunError:
        return LIST_PRICES


def _is_configured() -> bool:
    """Whether the Modal SDK would find a token."""
    file = Path(os.environ.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml")
    return "MODAL_TOKEN_ID" in os.environ or file.is_file()
