"""Define a step sandbox that is kept warm, and what is ordered in it.

Each order has a new random secret; all else is pure.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from modalrun.run import contract, tags
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.values import adapter

OF_A_STEP = frozenset(
    {
        contract.RUN_ID,
        contract.STEP,
        contract.CHILD,
        contract.STEP_RUN,
        contract.ATTEMPT,
        contract.STEP_METADATA,
        contract.TIMEOUT,
    }
)
"""The variables of a step sandbox that differ from step to step."""


def label_of(env: Mapping[str, str]) -> str:
    """Return the label of the step whose variables these are: what events and lines name it."""
    return env.get(contract.CHILD, "") + env[contract.STEP]


@dataclass(frozen=True)
class StepOrder:
    """Order one attempt at a step, in a sandbox that is kept warm.

    Attributes:
        secret: What the report of the step's end repeats.
        attempt: The number of the attempt, as the driver counts.
        env: The variables of this attempt, beside those of the sandbox.
    """

    secret: str
    attempt: int
    env: Mapping[str, str]

    def to_json(self) -> str:
        """Return the order as one line of JSON."""
        return adapter(StepOrder).dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> StepOrder:
        """Read an order from its JSON; raise ValueError for a damaged one."""
        return adapter(StepOrder).validate_json(text)


def _shared_env(spec: SandboxSpec) -> dict[str, str]:
    """Return the variables of a step's sandbox that every step in it has."""
    return {name: value for name, value in spec.env.items() if name not in OF_A_STEP}


def order_of(spec: SandboxSpec) -> StepOrder:
    """Return a new order for the step of a sandbox of its own."""
    env = {name: value for name, value in spec.env.items() if name in OF_A_STEP}
    return StepOrder(secrets.token_hex(16), int(spec.tags[tags.TAG_ATTEMPT]), env)


def labels_of(spec: SandboxSpec, order: StepOrder, number: int) -> dict[str, str]:
    """Return the tags of a worker while it runs the step of a spec, as its n-th one."""
    return {**spec.tags, tags.TAG_ORDER: order.secret, tags.TAG_SERVED: str(number)}


def worker_of(spec: SandboxSpec, plan: RunPlan) -> SandboxSpec:
    """Return the sandbox of a worker whose first step is that of a spec."""
    order = order_of(spec)
    return replace(
        spec,
        command=(*spec.command[: spec.command.index("-m")], "-m", contract.WORKER_MODULE),
        # The time limit of each step is its own.
        timeout=max(spec.timeout, plan.run_sandbox.timeout),
        env={
            **_shared_env(spec),
            contract.KEEP_WARM: str(plan.settings.keep_warm),
            contract.ORDER: order.to_json(),
        },
        tags=labels_of(spec, order, 1),
    )


def kind_of(spec: SandboxSpec) -> str:
    """Return a text that is equal for sandboxes of which each can run the other's step."""
    shared = replace(spec, name=None, tags={}, timeout=0, gpu_wait=None, env=_shared_env(spec))
    return json.dumps(asdict(shared), sort_keys=True)
