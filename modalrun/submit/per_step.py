"""Build the images of a run, and write the manifest of a `per_step` run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.isolated_step import layers_as_json
from modalrun.plan.model import Plan
from modalrun.run.manifest import MANIFEST_FILE, RunManifest, Source
from modalrun.run.records import CreatedRun
from modalrun.run.run_plan import RunPlan
from modalrun.submit.preflight import Job


@dataclass(frozen=True)
class Dispatched:
    """Hold a run whose sandbox can be created.

    Attributes:
        plan: The plan; its images are built.
        secrets: Environment variables of the run sandbox that travel as a Modal secret.
        manifest_file: The driver's manifest; None in `pipeline` mode.
        metadata: The parts of it that are stored with the run in ZenML.
    """

    plan: RunPlan
    secrets: Mapping[str, str] = field(repr=False)
    manifest_file: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def dispatch(
    job: Job,
    plan: Plan,
    run: CreatedRun,
    *,
    source: Source,
    folder: Path,
    staged: Path,
    registry: RegistryCredentials | None,
) -> Dispatched:
    """Build the images of a run and, in `per_step` mode, write its manifest.

    Args:
        job: The run.
        plan: Its plan, with the images of the stack's registry.
        run: Its record.
        source: Where the source tree comes from.
        folder: Where the manifest is written to.
        staged: The still copy of the source tree.
        registry: For images in a private registry.

    Raises:
        ModalrunError: An image can't be built, or there is no token for the driver.
    """
    per_step = plan.settings.mode == "per_step"
    token = job.connection.driver_environment() if per_step else {}
    built = plan.with_images(job.modal.build_images(job.connection, plan, staged, registry))
    if not per_step:
        return Dispatched(built, run.environment)
    compiled = job.compiled
    manifest = RunManifest(
        run_id=run.id,
        plan=built,
        failure_mode=compiled.deployment.failure_mode,
        source=source,
        variables=tuple(sorted(run.environment)),
        cached=tuple(run.cached),
        docker=compiled.pipeline_docker if plan.dynamic else {},
        layers=layers_as_json(compiled.deployment.written) if plan.dynamic else {},
    )
    secrets = {**run.environment, **token}
    return Dispatched(built, secrets, write(manifest, folder), manifest.to_metadata())


def write(manifest: RunManifest, folder: Path) -> Path:
    """Write a manifest to a folder; returns the file."""
    file = folder / Path(MANIFEST_FILE).name
    file.write_text(manifest.to_json(), encoding="utf-8")
    return file
