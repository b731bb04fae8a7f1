"""Plan the sandbox of a dynamic pipeline's isolated step, during the run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment, merged_orchestrator_settings
from modalrun.plan.planner import make_plan
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.spec.precedence import Layers, Origin, SettingsLayer


@dataclass(frozen=True)
class IsolatedStep:
    """Hold an isolated step whose record ZenML has made.

    Attributes:
        name: Its invocation id.
        step_run: The id of its record.
        run_id: The run it belongs to: that of the manifest, or of a child pipeline.
        attempt: The number of the attempt, from 1.
    """

    name: str
    step_run: str
    run_id: str
    attempt: int
    sandbox: SandboxSpec


def layers_as_json(layers: Layers) -> dict[str, dict[str, Any]]:
    """Return the settings of a pipeline by the name of their place, for the manifest.

    The code's own settings are left out: ZenML merges them into those of each step.
    """
    return {
        origin.name: {"settings": dict(layer.settings), "resources": dict(layer.resources)}
        for origin, layer in layers.items()
        if origin is not Origin.CODE_PIPELINE and (layer.settings or layer.resources)
    }


def plan_isolated_step(
    manifest: RunManifest,
    step: str,
    settings: Mapping[str, Any],
    *,
    docker: str,
    template: str | None,
    python: str,
    source_root: Path,
) -> SandboxSpec:
    """Plan the sandbox of an isolated step.

    Args:
        manifest: The run.
        step: The step's invocation id.
        settings: ZenML's settings of the step, with the pipeline's merged in, as plain values.
        docker: The digest of its Docker settings.
        template: The planned step that this one is made from, if there is one.
        python: The interpreter inside a sandbox of the local Modal server.
        source_root: Where files that settings name are looked for.

    Raises:
        UsageError: A setting is not supported, settings contradict one another, or the step needs
            an image that the run doesn't have.
    """
    planned = manifest.sandbox_of(template) if template is not None else None
    if planned is None and docker != manifest.docker:
        raise UsageError(
            f"The step '{step}' has Docker settings of its own, and its image was not built when"
            " the run was submitted.",
            hint="Name the step in '@pipeline(dynamic=True, depends_on=[...])'.",
        )
    image_of = planned or manifest.plan.run_sandbox
    own = SettingsLayer(merged_orchestrator_settings(settings), settings.get("resources") or {})
    layers: Layers = {
        **{Origin[name]: SettingsLayer(**values) for name, values in manifest.layers.items()},
        Origin.CODE_PIPELINE: SettingsLayer({"mode": "per_step"}),
    }
    pipeline, target = manifest.plan.pipeline, manifest.plan.target
    view = CompiledStep(PlannedStep(step), {Origin.CODE_STEP: own})
    plan = make_plan(
        Deployment(pipeline, (view,), layers),
        target=target,
        source_root=source_root,
        python=python if target == "local" else "python",
        python_version="3",
        engine_packages=(),
    )
    sandbox = plan.steps[0].sandbox
    assert sandbox is not None
    # The image is built already, and its recipe is not known here.
    path = {n: value for n, value in image_of.env.items() if n == "PYTHONPATH"}
    return replace(sandbox, image=image_of.image, env={**sandbox.env, **path})
