"""Deployment + run spec -> the sandboxes of a run. Pure: nothing is looked up or created."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modalrun import resources
from modalrun.deployment import Deployment
from modalrun.errors import UsageError
from modalrun.image import CODE_FOLDER, ImageRecipe, image_recipe
from modalrun.resources import Resources
from modalrun.setting_fields import MAX_TIMEOUT_SECONDS, not_supported
from modalrun.spec import Target

MAX_NAME = 64
MAX_TAG = 63
"""Modal's bounds on names and tag values (`modal/_utils/name_utils.py`, 1.6.4)."""

TAG_RUN = "modalrun-run"
TAG_ROLE = "modalrun-role"
TAG_STEP = "modalrun-step"
TAG_PIPELINE = "modalrun-pipeline"


@dataclass(frozen=True)
class SandboxSpec:
    """Everything that `modal.Sandbox.create` needs for one sandbox, but its secrets.

    Attributes:
        command: Program and arguments.
        image: The recipe of its image.
        resources: gpu, cpu and memory.
        timeout: Seconds until Modal ends it.
        cloud: Cloud provider; None lets Modal choose.
        regions: Regions to choose from; empty lets Modal choose.
        env: Plain environment variables; never secrets.
        workdir: Absolute path inside the sandbox.
        name: Unique among the running sandboxes of its app; set once the run exists.
        tags: What `status` and `stop` find it by; complete once the run exists.
    """

    command: tuple[str, ...]
    image: ImageRecipe
    resources: Resources
    timeout: int
    cloud: str | None = None
    regions: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = CODE_FOLDER
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The sandboxes of a run, and where they go.

    Attributes:
        target: Modal's cloud or the local Modal server.
        environment: The Modal environment; None for the default one.
        app_name: The persistent app that the sandboxes belong to.
        pipeline: The pipeline's name.
        run_sandbox: The sandbox that every run has.
        notes: What a user should know before it runs.
    """

    target: Target
    environment: str | None
    app_name: str
    pipeline: str
    run_sandbox: SandboxSpec
    notes: tuple[str, ...] = ()


def make_plan(
    deployment: Deployment,
    *,
    target: Target,
    source_root: Path,
    python: str,
    python_version: str,
    engine_packages: tuple[str, ...],
) -> Plan:
    """Resolve every setting of a deployment for `pipeline` mode.

    Args:
        deployment: The compiled pipeline.
        target: Where the sandbox runs.
        source_root: Where files that settings name (requirements) are looked for.
        python: The interpreter inside the sandbox: "python", or a path on this machine for the
            local Modal server.
        python_version: "3.11"; that of the image.
        engine_packages: What modalrun needs in the image.

    Raises:
        UsageError: A setting is not supported, or settings contradict one another.
    """
    settings = deployment.settings
    _refuse_unsupported("the pipeline", settings)
    pipeline_request = resources.request("the pipeline", settings, deployment.resources)
    step_requests = []
    notes: list[str] = []
    for step in deployment.steps:
        owner = f"step '{step.name}'"
        _refuse_unsupported(owner, step.own_settings)
        if step.own_docker:
            raise UsageError(
                f"{owner} has Docker settings of its own, but in pipeline mode all steps share one"
                " sandbox and so one image.",
                hint="Move them to the pipeline.",
            )
        step_requests.append(resources.request(owner, step.own_settings, step.own_resources))
        ineffective = sorted(set(step.own_settings) - {"gpu"})
        if ineffective:
            notes.append(
                f"{owner} sets {', '.join(ineffective)}: no effect in pipeline mode, where the"
                " pipeline's value counts"
            )
    sandbox_resources, resource_notes = resources.pipeline_mode(pipeline_request, step_requests)
    recipe, image_notes = image_recipe(
        deployment.docker,
        python_version=python_version,
        engine_packages=engine_packages,
        source_root=source_root,
        local=target == "local",
        image=settings.get("image"),
    )
    timeout = settings.get("timeout") or MAX_TIMEOUT_SECONDS
    region = settings.get("region") or ()
    return Plan(
        target=target,
        environment=settings.get("modal_environment"),
        app_name=settings.get("app_name") or app_name(deployment.pipeline),
        pipeline=deployment.pipeline,
        run_sandbox=SandboxSpec(
            command=(python, "-m", "modalrun.driver.supervisor", "modalrun.driver.runner"),
            image=recipe,
            resources=sandbox_resources,
            timeout=timeout,
            cloud=settings.get("cloud"),
            regions=(region,) if isinstance(region, str) else tuple(region),
            env={"MODALRUN_TIMEOUT": str(timeout), "PYTHONUNBUFFERED": "1"},
            tags={
                TAG_ROLE: "run",
                TAG_PIPELINE: fit(deployment.pipeline, MAX_TAG),
            },
        ),
        notes=(*notes, *resource_notes, *image_notes),
    )


def for_run(sandbox: SandboxSpec, run_id: str) -> SandboxSpec:
    """The run sandbox of one run: its name and tags are made from the run id, and so known."""
    return replace(
        sandbox,
        name=f"modalrun-{run_id}",
        tags={TAG_RUN: run_id, **sandbox.tags},
        env={**sandbox.env, "MODALRUN_RUN_ID": run_id},
    )


def app_name(pipeline: str) -> str:
    """The name of a pipeline's persistent Modal app."""
    return fit(f"zenml-pipeline-{pipeline}", MAX_NAME)


def fit(text: str, limit: int) -> str:
    """Make a name that Modal takes: other characters become dashes, a long one is cut and hashed.

    Two different texts never give the same name by being cut or cleaned: a changed one carries a
    hash of what it was.
    """
    clean = re.sub(r"[^A-Za-z0-9\-_.]", "-", text)
    if clean == text and len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{clean[: limit - 9]}-{digest}"


def _refuse_unsupported(owner: str, settings: Mapping[str, object]) -> None:
    unsupported = not_supported(settings)
    if unsupported is not None:
        name, instead = unsupported
        raise UsageError(
            f"{owner} sets '{name}', which is not supported yet: {instead}.",
            hint="Remove it; modalrun doesn't ignore settings silently.",
        )
