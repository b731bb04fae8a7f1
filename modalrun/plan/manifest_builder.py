"""Plan -> order: what the driver of a `per_step` run gets to know. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.planner import Plan, SandboxSpec
from modalrun.run.manifest import RunManifest, SandboxOrder, StepOrder

if TYPE_CHECKING:
    from modalrun.run.policies import StepPolicy


@dataclass(frozen=True)
class Source:
    """The source tree of a run.

    Attributes:
        root: The folder it was taken from.
        digest: The hash of its content.
        files: The hash of each file by its path, as it is kept; empty for very many.
        dockerignore: The file that says what of it stays behind, where it is not the usual one.
    """

    root: Path
    digest: str
    files: Mapping[str, str]
    dockerignore: str | None = None


def make_order(
    plan: Plan,
    run_id: str,
    *,
    images: Mapping[ImageRecipe, str],
    policies: Mapping[str, StepPolicy],
    failure_mode: str,
    variables: Collection[str],
    source: Source,
    python_path: Mapping[ImageRecipe, str],
    done: Collection[str] = (),
) -> RunManifest:
    """The order for a plan whose images are built.

    Args:
        plan: The plan, of a `per_step` run.
        run_id: ZenML's run id.
        images: Each recipe -> Modal's id of its image.
        policies: What the user wrote about retries and caching, by step.
        failure_mode: ZenML's `ExecutionMode`, as its value.
        variables: The names of the environment variables that reach ZenML.
        source: The source tree.
        python_path: Each recipe -> the PYTHONPATH of its sandboxes; empty to leave it.
        done: The steps that were found cached already.
    """
    sandboxes: list[SandboxOrder] = []
    steps = []
    for step in plan.steps:
        assert step.sandbox is not None
        sandbox = sandbox_order(step.sandbox, images, python_path)
        if sandbox not in sandboxes:
            sandboxes.append(sandbox)
        policy = policies[step.name]
        steps.append(
            StepOrder(
                name=step.name,
                sandbox=sandboxes.index(sandbox),
                upstream=step.upstream,
                done=step.name in done,
                # What needs no other step was looked up when the run was submitted.
                look_up=policy.caches and bool(step.upstream),
                retries=policy.retries,
                delay=policy.delay,
                backoff=policy.backoff,
            )
        )
    return RunManifest(
        run_id=run_id,
        pipeline=plan.pipeline,
        target=plan.target,
        app=plan.app_name,
        environment=plan.environment,
        failure_mode=failure_mode,
        driver=sandbox_order(plan.run_sandbox, images, python_path),
        sandboxes=tuple(sandboxes),
        steps=tuple(steps),
        variables=tuple(sorted(variables)),
        source_root=str(source.root),
        source_hash=source.digest,
        source_files=source.files,
        dockerignore=source.dockerignore,
        max_parallelism=plan.max_parallelism,
        creation_rate=_setting(plan, "creation_rate", 5.0),
        infrastructure_retries=_setting(plan, "infrastructure_retries", 2),
        prewarm=_setting(plan, "prewarm", "off"),
    )


def sandbox_order(
    spec: SandboxSpec, images: Mapping[ImageRecipe, str], python_path: Mapping[ImageRecipe, str]
) -> SandboxOrder:
    """A sandbox spec whose image is built, as the driver gets to know it."""
    asked = spec.resources
    path = python_path.get(spec.image)
    return SandboxOrder(
        command=spec.command,
        image=images[spec.image],
        timeout=spec.timeout,
        workdir=spec.workdir,
        gpus=asked.gpus,
        cpu=asked.cpu,
        cpu_limit=asked.cpu_limit,
        memory=asked.memory,
        memory_limit=asked.memory_limit,
        cloud=spec.cloud,
        regions=spec.regions,
        env={**spec.env, **({"PYTHONPATH": path} if path else {})},
        secrets=spec.secrets,
        volumes=spec.volumes,
    )


def _setting(plan: Plan, name: str, default: Any) -> Any:
    found = plan.origins.get(name)
    return default if found is None or found.value is None else found.value
