"""Plan a run in `per_step` mode: one sandbox for each step, and one for the driver. Pure."""

from __future__ import annotations

from dataclasses import fields, replace

from modalrun.plan import resources
from modalrun.plan.deployment import CompiledStep
from modalrun.plan.model import RUN_SANDBOX
from modalrun.plan.resources import Resolved
from modalrun.plan.sandbox_planner import SandboxPlanner
from modalrun.run.contract import DRIVER_MODULE, DYNAMIC_MODULE
from modalrun.run.manifest import MANIFEST_FILE
from modalrun.run.run_plan import PlannedStep, RunSettings
from modalrun.run.sandbox_spec import DEFAULT_CORES, DEFAULT_MEMORY_MIB, Resources, SandboxSpec
from modalrun.spec.precedence import Origin, SettingsLayer, Value, resolve
from modalrun.spec.validation import Mistakes
from modalrun.util.timeparse import written

_DRIVER = Resolved(
    Resources(),
    {
        "cpu_count": Value(DEFAULT_CORES, Origin.DEFAULT, "driver"),
        "memory": Value(f"{DEFAULT_MEMORY_MIB}MiB", Origin.DEFAULT, "driver"),
    },
)


def plan_per_step_mode(planner: SandboxPlanner) -> tuple[SandboxSpec, tuple[PlannedStep, ...]]:
    """Plan a small CPU sandbox for the driver, and one with its own values for each step.

    Raises:
        UsageError: The resources of a step can't be resolved.
    """
    deployment = planner.deployment
    driver = planner.sandbox(
        RUN_SANDBOX,
        DYNAMIC_MODULE if deployment.dynamic else DRIVER_MODULE,
        MANIFEST_FILE,
        resolved=_DRIVER,
        docker=deployment.docker,
        layers=planner.layers,
        variables=deployment.process_variables,
        driver="dynamic" if deployment.dynamic else "static",
    )
    if not deployment.dynamic:
        # The inline steps of a dynamic pipeline run there and use both.
        driver = replace(driver, secrets=(), volumes={})
        unused = {"secrets", "volumes"}
        origins = planner.origins[RUN_SANDBOX].items()
        planner.origins[RUN_SANDBOX] = {name: v for name, v in origins if name not in unused}
    elif resolve("gpu", planner.layers) is not None:
        planner.note("gpu: for isolated steps only, inline ones run in the run sandbox")
    steps, mistakes = list[PlannedStep](), Mistakes()
    for step in deployment.steps:
        with mistakes.collecting():
            steps.append(_planned(planner, step, driver.timeout))
    mistakes.raise_all()
    return driver, tuple(steps)


def _planned(planner: SandboxPlanner, step: CompiledStep, run_timeout: int) -> PlannedStep:
    layer = planner.step_layer(step)
    resolved = resources.of_step(step.name, planner.layers, layer, local=planner.local)
    planner.note_step(step.name, *resolved.notes)
    ignored = sorted(one.name for one in fields(RunSettings) if layer.get(one.name) is not None)
    if ignored:
        text = f"{', '.join(ignored)}: no effect on a step, set it on the pipeline"
        planner.note_step(step.name, text)
    sandbox = planner.sandbox(
        step.name,
        "modalrun.driver.step",
        resolved=resolved,
        docker=planner.deployment.docker if step.docker is None else step.docker,
        layers={Origin.CODE_STEP: layer, **planner.layers},
        variables=step.process_variables,
        longest=run_timeout,
    )
    timeout = planner.origins[step.name]["timeout"].value
    if timeout > run_timeout:
        text = f"timeout {written(timeout)} is cut to the run's, {written(run_timeout)}"
        planner.note_step(step.name, text)
    if planner.deployment.dynamic and _is_inline(planner, step, layer):
        text = (
            'runs in the run sandbox, not in this one, unless it is called with runtime="isolated"'
        )
        planner.note_step(step.name, text)
    return replace(step.planned, sandbox=sandbox)


def _is_inline(planner: SandboxPlanner, step: CompiledStep, layer: SettingsLayer) -> bool:
    """Return whether ZenML runs a step in the process of the pipeline, as it is compiled."""
    demands = {**planner.layers[Origin.CODE_PIPELINE].resources, **layer.resources}
    if any(demands.get(name) for name in ("cpu_count", "gpu_count", "memory")):
        return False
    return step.runtime == "inline" or (step.runtime is None and step.docker is None)
