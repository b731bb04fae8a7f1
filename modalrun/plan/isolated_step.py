"""The sandbox of a dynamic pipeline's isolated step, known only while the run goes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment, StepView
from modalrun.plan.manifest_builder import sandbox_order
from modalrun.plan.planner import make_plan
from modalrun.run.manifest import RunManifest, SandboxOrder
from modalrun.spec.precedence import Layers, Origin, SettingsLayer


def as_plain(places: Layers) -> dict[str, dict[str, Any]]:
    """What is written about a pipeline, by the name of its place, for the order.

    The code's own settings are left out: ZenML merges them into those of each step.
    """
    return {
        origin.name: {"settings": dict(written.settings), "resources": dict(written.resources)}
        for origin, written in places.items()
        if origin is not Origin.CODE_PIPELINE and (written.settings or written.resources)
    }


def sandbox_for(
    order: RunManifest,
    step: str,
    settings: Mapping[str, Any],
    *,
    template: str | None,
    python: str,
    source_root: Path,
) -> SandboxOrder:
    """The sandbox that a step gets.

    Args:
        order: The run.
        step: The step's invocation id.
        settings: ZenML's settings of the step, with the pipeline's merged in, as plain values.
        template: The step of the order that this one is made from, where there is one.
        python: The interpreter inside a sandbox of the local Modal server.
        source_root: The source tree.

    Raises:
        UsageError: A setting is not supported, settings contradict one another, or the step needs
            an image that the run doesn't have.
    """
    known = {one.name for one in order.steps}
    if template not in known and _docker(settings) != order.docker:
        raise UsageError(
            f"The step '{step}' has Docker settings of its own, and its image was not built when"
            " the run was submitted.",
            hint="Name the step in '@pipeline(dynamic=True, depends_on=[...])'.",
        )
    image_of = order.sandbox_of(template) if template in known else order.driver
    merged: dict[str, Any] = {}
    for key, values in settings.items():
        if key.partition(":")[0].partition(".")[0] == "orchestrator":
            merged.update(values)
    own = SettingsLayer(merged, dict(settings.get("resources") or {}))
    places: Layers = {
        **{Origin[name]: SettingsLayer(**values) for name, values in order.written.items()},
        Origin.CODE_PIPELINE: SettingsLayer({"mode": "per_step"}),
    }
    plan = make_plan(
        Deployment(order.pipeline, (StepView(step, written={Origin.CODE_STEP: own}),), places),
        target="local" if order.target == "local" else "modal",
        source_root=source_root,
        python=python if order.target == "local" else "python",
        python_version="3",
        engine_packages=(),
    )
    sandbox = plan.steps[0].sandbox
    assert sandbox is not None
    made = sandbox_order(sandbox, {sandbox.image: image_of.image}, {})
    path = image_of.env.get("PYTHONPATH")
    return replace(made, env={**made.env, **({"PYTHONPATH": path} if path else {})})


def _docker(settings: Mapping[str, Any]) -> dict[str, Any]:
    return dict(settings.get("docker") or {})


@dataclass(frozen=True)
class IsolatedStep:
    """An isolated step whose record ZenML has made.

    Attributes:
        name: Its invocation id.
        step_run: The id of its record.
        run_id: Of the run it belongs to: that of the order, or of a child pipeline.
        attempt: Which try it is, from 1.
        sandbox: The sandbox that it gets.
    """

    name: str
    step_run: str
    run_id: str
    attempt: int
    sandbox: SandboxOrder
