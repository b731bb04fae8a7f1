"""Define the plan of a run: its sandboxes, and the origin of each of their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modalrun.plan.image_recipe import ImageRecipe
from modalrun.run.run_plan import RunPlan
from modalrun.spec.precedence import Value

RUN_SANDBOX = ""
"""The key of the run sandbox beside the names of steps."""


@dataclass(frozen=True)
class Plan(RunPlan):
    """Hold a run's sandboxes before their images are built, and explain them.

    Attributes:
        images: Image recipes by key, which `SandboxSpec.image` refers to.
        origins: The origin of each setting of the run as a whole.
        sandbox_origins: By step, and under `RUN_SANDBOX`, the origin of each setting of a sandbox.
        notes: Remarks for the user before the run.
    """

    images: Mapping[str, ImageRecipe] = field(default_factory=dict)
    origins: Mapping[str, Value] = field(default_factory=dict)
    sandbox_origins: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The steps in the order they can run; the steps of one layer can run side by side."""
        depth: dict[str, int] = {}
        rows: dict[int, list[str]] = {}
        for step in self.steps:
            depth[step.name] = 1 + max((depth[name] for name in step.upstream), default=-1)
            rows.setdefault(depth[step.name], []).append(step.name)
        return tuple(tuple(rows[row]) for row in sorted(rows))
