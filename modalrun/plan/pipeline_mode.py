"""Plan a run in `pipeline` mode: one sandbox for all steps. Pure."""

from __future__ import annotations

from dataclasses import replace

from modalrun.errors import UsageError
from modalrun.plan import resources
from modalrun.plan.model import RUN_SANDBOX
from modalrun.plan.sandbox_planner import SandboxPlanner, some_steps
from modalrun.run.contract import DYNAMIC_MODULE, MAX_PARALLELISM
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.spec.precedence import Origin, SettingsLayer, resolve


def plan_pipeline_mode(planner: SandboxPlanner) -> tuple[SandboxSpec, tuple[PlannedStep, ...]]:
    """Plan one sandbox with the pipeline's values, else with the highest of the steps'.

    Raises:
        UsageError: Steps need different images, or their resources can't be joined.
    """
    deployment, layers = planner.deployment, planner.layers
    _check_images(planner)
    steps = {step.name: planner.step_layer(step) for step in deployment.steps}
    resolved = resources.of_pipeline(layers, steps, local=planner.local)
    for name, layer in steps.items():
        _note_ineffective(planner, name, layer)
    planner.note(*resolved.notes)
    for name in ("keep_warm", "creation_rate"):
        if resolve(name, layers) is not None:
            planner.note(f"{name}: no effect in pipeline mode, which has one sandbox")
    sandbox = planner.sandbox(
        RUN_SANDBOX,
        DYNAMIC_MODULE if deployment.dynamic else "modalrun.driver.pipeline",
        resolved=resolved,
        docker=deployment.docker,
        layers=layers,
        variables=deployment.process_variables,
    )
    if (at_once := resolve("max_parallelism", layers)) is not None:
        # The first is ZenML's own.
        variable = "ZENML_DYNAMIC_PIPELINE_WORKER_COUNT" if deployment.dynamic else MAX_PARALLELISM
        sandbox = replace(sandbox, env={**sandbox.env, variable: str(at_once.value)})
    return sandbox, tuple(step.planned for step in deployment.steps)


def _check_images(planner: SandboxPlanner) -> None:
    docker = planner.deployment.docker
    steps = planner.deployment.steps
    different = [step.name for step in steps if step.docker not in (None, docker)]
    if different:
        have, their = ("has", "its") if len(different) == 1 else ("have", "their")
        raise UsageError(
            f"{some_steps(different)} {have} Docker settings of {their} own, but in pipeline mode"
            " all steps share one sandbox and so one image.",
            hint="Set 'mode: per_step', where each step has its own image, or move the Docker"
            " settings to the pipeline.",
        )


def _note_ineffective(planner: SandboxPlanner, name: str, step: SettingsLayer) -> None:
    """Note which settings of a step have no effect beside the pipeline's."""
    ineffective = [n for n, value in step.settings.items() if value is not None and n != "gpu"]
    pipeline_gpu = planner.layers[Origin.CODE_PIPELINE].get("gpu")
    if pipeline_gpu is not None and step.get("gpu") not in (None, pipeline_gpu):
        ineffective.append("gpu")
    if ineffective:
        names = ", ".join(sorted(ineffective))
        planner.note_step(
            name, f"{names}: no effect in pipeline mode, where the pipeline's value counts"
        )
