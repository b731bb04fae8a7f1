"""Make the deployment of a rerun: that of an earlier run, which skips what has succeeded in it.

This is ZenML's replay: the run names the original one, and its deployment the steps to skip. ZenML
records such a step as skipped, with the results of the original one (`step_run_utils.py:316`,
0.98.0).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from uuid import UUID

from zenml.client import Client
from zenml.config.step_configurations import Step, StepConfiguration
from zenml.constants import CODE_HASH_PARAMETER_NAME
from zenml.models import (
    ArtifactVersionResponse,
    PipelineRunResponse,
    PipelineSnapshotBase,
    StepRunResponse,
)
from zenml.steps import BaseStep
from zenml.utils.string_utils import format_name_template

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.deployment import with_caching
from modalrun.run.rerun import TAG, Earlier, Rerun, decide
from modalrun.spec.run_spec import RerunRequest, RunSpec
from modalrun.zenml_api.compiling.compile import Compiled
from modalrun.zenml_api.compiling.user_code import user_code
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.records.cache import steps_of
from modalrun.zenml_api.records.queries import step_runs

_AT_ONCE = 8
"""Artifacts that are looked for at the same time."""


def as_rerun(compiled: Compiled, spec: RunSpec, request: RerunRequest) -> Compiled:
    """Let a compiled pipeline skip what has succeeded in an earlier run, and run all else.

    Args:
        compiled: The pipeline of the earlier run, as it was or compiled anew.

    Raises:
        NotFoundError: There is no such run, or no step to begin with.
        UsageError: There is nothing to run.
    """
    with translated():
        try:
            run = Client().zen_store.get_run(UUID(request.run_id))
        except KeyError as error:
            raise NotFoundError(f"ZenML has no run {request.run_id}.") from error
        records = steps_of(run.id)
        ends = {step.name: step for step in step_runs(request.run_id)}
        lost, notes = _lost_results(compiled, records)
        dynamic = compiled.deployment.dynamic
        changed: dict[str, str] = {}
        if request.compiles:
            changed = _changes(compiled, run, records, spec)
        if dynamic and request.compiles:
            notes += (
                "the steps of a dynamic pipeline are known by their names: other arguments of"
                " a step that is skipped are not noticed ('--from STEP' runs it)",
            )
        known = records if dynamic else compiled.snapshot.step_configurations
        steps = {
            name: Earlier(
                step.spec.upstream_steps, ends.get(name), lost.get(name) or changed.get(name)
            )
            for name, step in known.items()
        }
        skipped, runs = decide(steps, request.begin, dynamic=dynamic)
        if not runs and (not dynamic or run.status.is_successful):
            raise UsageError(
                f"Every step of the run {run.name} has succeeded; there is nothing to run again.",
                hint="Name the step to begin with: '--from STEP'.",
            )
        rerun = Rerun(request.run_id, run.name, _tag(run), skipped, runs, dynamic=dynamic)
        deployment = compiled.deployment.with_caching(False)
        return replace(
            compiled,
            deployment=replace(deployment, notes=(*deployment.notes, *notes)),
            snapshot=_snapshot(compiled.snapshot, rerun, request),
            stored_id=None,
            rerun=rerun,
        )


def _snapshot(
    snapshot: PipelineSnapshotBase, rerun: Rerun, request: RerunRequest
) -> PipelineSnapshotBase:
    """Return a deployment that skips steps, and takes nothing else from ZenML's cache."""
    plain = with_caching(snapshot.model_dump(mode="json"), enabled=False)
    pipeline = plain["pipeline_configuration"]
    tags = [tag for tag in pipeline.get("tags") or () if tag != rerun.tag]
    plain["pipeline_configuration"] = {
        **pipeline,
        "steps_to_skip": list(rerun.skipped),
        "tags": [*tags, rerun.tag],
    }
    named = request.given.flag(("run_name",)) is not None
    if not named and "{time}" not in (template := snapshot.run_name_template):
        # ZenML has a run of this name.
        suffix = "-{time}" if "{date}" in template else "-{date}-{time}"
        plain["run_name_template"] = f"{template}{suffix}"
    return PipelineSnapshotBase.model_validate(plain)


def _tag(run: PipelineRunResponse) -> str:
    """Return the tag that all reruns of a run have, and their reruns."""
    names = (tag.name for tag in run.tags)
    return next((name for name in names if name.startswith(TAG)), f"{TAG}{run.id}")


def _lost_results(
    compiled: Compiled, records: Mapping[str, StepRunResponse]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the steps whose results a new run can't take, each with why; and notes.

    An artifact in another store than the stack's is taken to be there.
    """
    lost: dict[str, str] = {}
    artifacts: list[tuple[str, str, ArtifactVersionResponse]] = []
    stack = compiled.stack
    # Those of a run that begins now.
    placeholders = compiled.snapshot.pipeline_configuration.finalize_substitutions()
    for name, step in records.items():
        if not step.status.is_successful:
            continue
        for template in step.config.outputs:
            output = format_name_template(template, step.substitutions)
            if not step.outputs.get(output):
                lost[name] = f"its result '{output}' was deleted"
            elif output != format_name_template(template, {**step.substitutions, **placeholders}):
                # There ZenML looks for it under that name (`input_utils.py:92`, 0.98.0).
                lost[name] = f"its result '{output}' has another name in a new run"
        artifacts += [
            (name, output, artifact)
            for output, versions in step.outputs.items()
            for artifact in versions
            if artifact.artifact_store_id == stack.artifact_store.id
        ]
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(stack.artifact_store.exists, [one.uri for _, _, one in artifacts])
            for (name, output, _), exists in zip(artifacts, found, strict=True):
                if not exists:
                    lost[name] = f"its result '{output}' was deleted"
    except Exception as error:
        return lost, (f"whether all results are still there is not known: {first_line(error)}",)
    return lost, ()


def _changes(
    compiled: Compiled,
    run: PipelineRunResponse,
    records: Mapping[str, StepRunResponse],
    spec: RunSpec,
) -> dict[str, str]:
    """Return the steps that were compiled to something else in the earlier run, with what is."""
    # As ZenML has stored that run: a tuple is a list, and a date its text.
    now = PipelineSnapshotBase.model_validate(compiled.snapshot.model_dump(mode="json"))
    if compiled.deployment.dynamic:
        if now.pipeline_configuration.parameters != run.config.parameters:
            raise UsageError(
                "The pipeline is dynamic: which of its steps depend on its parameters is not"
                " known, so other ones can't be given to a rerun.",
                hint="Submit the pipeline with them.",
            )
        found = {name: _other_code(step, spec) for name, step in records.items()}
        return {name: why for name, why in found.items() if why is not None}
    if run.snapshot is None:
        raise NotFoundError(f"The deployment of the run {run.id} was deleted.")
    before = Client().zen_store.get_snapshot(run.snapshot.id).step_configurations
    return {
        name: why
        for name, step in now.step_configurations.items()
        if name in before
        and (why := next(_differences(before[name], step, compiled), None)) is not None
    }


def _other_code(record: StepRunResponse, spec: RunSpec) -> str | None:
    """Return whether the code of a dynamic pipeline's step has changed."""
    before = record.config.caching_parameters.get(CODE_HASH_PARAMETER_NAME)
    try:
        with user_code(spec, f"loading the step '{record.name}'"):
            step = BaseStep.load_from_source(record.spec.source)
    except UsageError:
        return "its code is gone"
    now = hashlib.sha256(step.source_code_cache_value.encode()).hexdigest()
    return "its code has changed" if before not in {None, now} else None


def _differences(before: Step, now: Step, compiled: Compiled) -> Iterator[str]:
    """Yield what a step's result depends on and has changed."""
    old, new = before.config, now.config
    for name in sorted(old.parameters.keys() | new.parameters.keys()):
        if old.parameters.get(name) != new.parameters.get(name):
            yield f"its parameter '{name}' has changed"
    if (
        before.spec.source.import_path != now.spec.source.import_path
        or old.caching_parameters != new.caching_parameters
    ):
        yield "its code has changed"
    if (
        before.spec.normalized_inputs != now.spec.normalized_inputs
        or set(before.spec.upstream_steps) != set(now.spec.upstream_steps)
        or old.model_artifacts_or_metadata != new.model_artifacts_or_metadata
        or old.client_lazy_loaders != new.client_lazy_loaders
        or _contents(old) != _contents(new, compiled.unstored)
    ):
        yield "its inputs have changed"
    if old.outputs.keys() != new.outputs.keys():
        yield "its outputs have changed"
    if old.environment != new.environment:
        yield "its environment has changed"


def _contents(
    config: StepConfiguration, unstored: Mapping[UUID, str | None] = MappingProxyType({})
) -> dict[str, str | None]:
    """Return the hash of each external artifact; each compilation stores them anew."""
    found: dict[str, str | None] = {}
    for name, reference in config.external_input_artifacts.items():
        found[name] = unstored.get(reference.id) if reference.id else None
        if reference.id is not None and reference.id not in unstored:
            with contextlib.suppress(KeyError):
                artifact = Client().zen_store.get_artifact_version(reference.id)
                found[name] = artifact.content_hash or str(artifact.id)
    return found
