"""Plan a run: resolve every setting of a deployment to the sandboxes that run it. Pure."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path

from modalrun.errors import without_credentials
from modalrun.plan import catalog
from modalrun.plan.deployment import Deployment
from modalrun.plan.docker_settings import image_recipe
from modalrun.plan.model import Plan
from modalrun.plan.per_step_mode import plan_per_step_mode
from modalrun.plan.pipeline_mode import plan_pipeline_mode
from modalrun.plan.sandbox_planner import SandboxPlanner
from modalrun.run.run_plan import RunSettings, Target
from modalrun.run.tags import MAX_NAME, fit
from modalrun.spec.precedence import Value, resolve_or


def make_plan(
    deployment: Deployment,
    *,
    target: Target,
    source_root: Path,
    python_version: str,
    engine_packages: tuple[str, ...],
    environment: Value | None = None,
) -> Plan:
    """Resolve every setting of a deployment.

    Args:
        deployment: The compiled pipeline, with the settings of the run spec and the command line.
        target: Where the sandboxes run: "modal" or "local".
        source_root: Where files that settings name (requirements) are looked for.
        python_version: That of the image, "3.11".
        engine_packages: The packages that modalrun needs in the image.
        environment: The Modal environment that is used unless a setting names one.

    Raises:
        UsageError: A setting is not supported, or settings contradict one another.
    """
    local = target == "local"
    build_recipe = partial(
        image_recipe,
        python_version=python_version,
        engine_packages=engine_packages,
        source_root=source_root,
        local=local,
    )
    planner = SandboxPlanner(deployment, build_recipe=build_recipe, local=local)
    defaults = {field.name: field.default for field in fields(RunSettings)}
    defaults["app_name"] = app_name(deployment.pipeline)
    origins = {n: resolve_or(n, default, planner.layers) for n, default in defaults.items()}
    if environment is not None and origins["modal_environment"].value is None:
        origins["modal_environment"] = environment
    values = {name: value.value for name, value in origins.items()}
    include = tuple(values.pop("source_include"))
    settings = RunSettings(**values, source_include=include)
    plan_mode = plan_per_step_mode if settings.mode == "per_step" else plan_pipeline_mode
    run_sandbox, steps = plan_mode(planner)
    sandboxes = (run_sandbox, *(step.sandbox for step in steps if step.sandbox is not None))
    return Plan(
        target=target,
        pipeline=deployment.pipeline,
        settings=settings,
        run_sandbox=run_sandbox,
        steps=steps,
        dynamic=deployment.dynamic,
        images=planner.images,
        origins=origins,
        sandbox_origins=planner.origins,
        notes=tuple(
            without_credentials(note)
            for note in (*deployment.notes, *planner.notes(), *catalog.notes(sandboxes, target))
        ),
    )


def app_name(pipeline: str) -> str:
    """Return the name of a pipeline's persistent Modal app."""
    return fit(f"zenml-pipeline-{pipeline}", MAX_NAME)
