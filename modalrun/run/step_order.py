"""Define what the driver orders in a step sandbox that is kept warm. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from modalrun.run import contract
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.values import adapter

OF_A_STEP = frozenset(
    {
        contract.RUN_ID,
        contract.STEP,
        contract.STEP_RUN,
        contract.ATTEMPT,
        contract.STEP_METADATA,
        contract.TIMEOUT,
    }
)
"""The variables of a step sandbox that differ from step to step."""


@dataclass(frozen=True)
class StepOrder:
    """Run one attempt at a step.

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


def shared_env(spec: SandboxSpec) -> dict[str, str]:
    """Return the variables of a step's sandbox that every step in it has."""
    return {name: value for name, value in spec.env.items() if name not in OF_A_STEP}


def kind_of(spec: SandboxSpec) -> str:
    """Return a text that is equal for sandboxes of which each can run the other's step."""
    shared = replace(spec, name=None, tags={}, timeout=0, gpu_wait=None, env=shared_env(spec))
    return json.dumps(asdict(shared), sort_keys=True)
