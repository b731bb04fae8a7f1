"""Write the manifest of a `per_step` run, from which its driver works."""

from __future__ import annotations

from pathlib import Path

from modalrun.plan.isolated_step import layers_as_json
from modalrun.run.manifest import MANIFEST_FILE, RunManifest, Source
from modalrun.run.records import CreatedRun
from modalrun.run.run_plan import RunPlan
from modalrun.submit.preflight import Job


def make_manifest(job: Job, plan: RunPlan, run: CreatedRun, source: Source) -> RunManifest:
    """Make the manifest of a run.

    Args:
        job: The run as it was checked.
        plan: Its plan; all images are built.
        run: Its record.
        source: Its source tree.
    """
    compiled = job.compiled
    return RunManifest(
        run_id=run.id,
        plan=plan,
        failure_mode=compiled.deployment.failure_mode,
        source=source,
        variables=tuple(sorted(run.environment)),
        cached=tuple(run.cached),
        docker=compiled.pipeline_docker if plan.dynamic else {},
        layers=layers_as_json(compiled.deployment.layers) if plan.dynamic else {},
    )


def write_manifest(manifest: RunManifest, folder: Path) -> Path:
    """Write a manifest to a folder and return the file."""
    file = folder / Path(MANIFEST_FILE).name
    file.write_text(manifest.to_json(), encoding="utf-8")
    return file
