"""Plan the sandbox of a dynamic pipeline's isolated step, during the run. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment, merged_orchestrator_settings
from modalrun.plan.planner import make_plan
from modalrun.plan.snapshot_schema import check_settings
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.step_request import StepRequest
from modalrun.spec.precedence import Layers, Origin, SettingsLayer

_ANNOUNCE = "Name the step in '@pipeline(dynamic=True, depends_on=[...])'."


@dataclass(frozen=True)
class IsolatedStep:
    """Hold an isolated step whose record ZenML has made.

    Attributes:
        name: Its invocation id.
        step_run: The id of its record.
        run_id: The run it belongs to: that of the manifest, or of a child pipeline.
        attempt: The number of the attempt, from 1.
        child: What precedes its name in its label; empty unless it is a child pipeline's.
    """

    name: str
    step_run: str
    run_id: str
    attempt: int
    sandbox: SandboxSpec
    child: str = ""


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
    manifest: RunManifest, request: StepRequest, *, source_root: Path
) -> IsolatedStep:
    """Plan the sandbox of an isolated step.

    The request chooses resources and a time limit. What reaches further is the run's own: the
    command, the image, the app, and which secrets and volumes there can be.

    Args:
        source_root: Where files that settings name are looked for.

    Raises:
        UsageError: A setting is not supported, settings contradict one another, or the step needs
            an image, a secret or a volume that the run doesn't have.
    """
    step, settings = request.child + request.name, request.settings
    planned = manifest.sandbox_of(request.template) if request.template is not None else None
    if planned is None and request.docker != manifest.docker:
        raise UsageError(
            f"The step '{step}' has Docker settings of its own, and its image was not built when"
            " the run was submitted.",
            hint=_ANNOUNCE,
        )
    image_of = planned or manifest.plan.run_sandbox
    orchestrator = check_settings(merged_orchestrator_settings(settings))
    own = SettingsLayer(orchestrator, settings.get("resources") or {})
    layers: Layers = {
        **{Origin[name]: SettingsLayer(**values) for name, values in manifest.layers.items()},
        Origin.CODE_PIPELINE: SettingsLayer(
            {"mode": "per_step", "timeout": manifest.plan.run_sandbox.timeout}
        ),
    }
    pipeline, target = manifest.plan.pipeline, manifest.plan.target
    view = CompiledStep(PlannedStep(step), {Origin.CODE_STEP: own})
    plan = make_plan(
        Deployment(pipeline, (view,), layers),
        target=target,
        source_root=source_root,
        python_version="3",
        engine_packages=(),
    )
    sandbox = plan.steps[0].sandbox
    assert sandbox is not None
    _require_known(manifest, step, sandbox)
    # The image is built already, and its recipe is not known here.
    env = {**sandbox.env, "PYTHONPATH": image_of.env["PYTHONPATH"]}
    return IsolatedStep(
        name=request.name,
        step_run=str(request.step_run),
        run_id=str(request.run_id),
        attempt=request.attempt,
        child=request.child,
        sandbox=replace(
            sandbox, image=image_of.image, keeps_entrypoint=image_of.keeps_entrypoint, env=env
        ),
    )


def _require_known(manifest: RunManifest, step: str, sandbox: SandboxSpec) -> None:
    """Raise a UsageError for a secret or a volume that the submitted run doesn't have."""
    known = manifest.plan.sandboxes
    for what, asked, submitted in (
        ("secret", sandbox.secrets, {name for one in known for name in one.secrets}),
        ("volume", sandbox.volumes, {name for one in known for name in one.volumes}),
    ):
        for name in asked:
            if name not in submitted:
                raise UsageError(
                    f"The step '{step}' asks for the Modal {what} '{name}', which no part of the"
                    " run had when it was submitted.",
                    hint=f"{_ANNOUNCE} Or give the {what} to the pipeline.",
                )
