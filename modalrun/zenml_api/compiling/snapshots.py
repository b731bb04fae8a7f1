"""Load a deployment that was compiled before: from a file, or a snapshot in ZenML."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

import zenml
from pydantic import ValidationError
from zenml.client import Client
from zenml.models import PipelineSnapshotBase, PipelineSnapshotResponse, StackResponse

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.deployment import (
    Deployment,
    orchestrator_settings,
    read_snapshot,
    with_run_options,
    with_spec,
)
from modalrun.plan.deployment_file import AGAIN, DeploymentFile
from modalrun.plan.foreign_docker import check_foreign_docker
from modalrun.spec.fields import FIELD_NAMES
from modalrun.spec.precedence import Layers, Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.step_keys import for_steps
from modalrun.zenml_api.compiling.compile import Compiled, assemble, use_stack
from modalrun.zenml_api.component import OUR_FLAVORS, component_defaults
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.stacks import orchestrator_of


def from_file(file: DeploymentFile, spec: RunSpec) -> Compiled:
    """Load the deployment of a file for the stack that it was compiled for.

    Raises:
        UsageError: This ZenML can't read it.
        NotFoundError: ZenML has no stack of that id or name.
    """
    snapshot = with_run_options(file.snapshot, spec.run_configuration)
    try:
        parsed = PipelineSnapshotBase.model_validate(snapshot)
    except ValidationError as error:
        raise UsageError(
            f"The deployment was compiled by ZenML {file.zenml_version}; this ZenML"
            f" ({zenml.__version__}) can't read it: {error.error_count()} fields don't fit.",
            hint=AGAIN,
        ) from error
    with translated():
        model = _stack_of(file)
        deployment = file.deployment
        if (cache := spec.run_configuration.get("enable_cache")) is not None:
            deployment = deployment.with_caching(bool(cache))
        return replace(_compiled(deployment, parsed, model, spec), source_code=file.source_code)


def from_zenml(name_or_id: str, spec: RunSpec) -> Compiled:
    """Load a snapshot that is stored in ZenML.

    Args:
        name_or_id: Its id, or its name if only one pipeline has a snapshot of that name.
        spec: The run spec; its `run_name` and `enable_cache` make a new snapshot of it.

    Raises:
        NotFoundError: ZenML has no such snapshot.
        UsageError: Several pipelines have one of that name, or its stack is gone.
    """
    with translated():
        response = _find(name_or_id, spec)
        if response.stack is None:
            raise UsageError(
                f"The stack that the snapshot {response.id} was compiled for is gone.",
                hint="Compile the pipeline for another stack. A run of it can't be resumed:"
                " 'modalrun stop' ends it.",
            )
        values = {name: getattr(response, name) for name in PipelineSnapshotBase.model_fields}
        plain = PipelineSnapshotBase(**values).model_dump(mode="json")
        snapshot = with_run_options(plain, spec.run_configuration)
        orchestrator = orchestrator_of(response.stack)
        settings = orchestrator_settings(plain)
        ignored: set[str] = set()
        notes: tuple[str, ...] = ()
        if orchestrator.flavor not in OUR_FLAVORS and not _are_ours(settings):
            ignored = set(settings)
        if ignored:
            notes = (
                f"the snapshot's settings for the orchestrator flavor '{orchestrator.flavor}'"
                " have no effect on Modal",
            )
        deployment = replace(read_snapshot(snapshot, ignored_settings=ignored), notes=notes)
        parsed = PipelineSnapshotBase.model_validate(snapshot)
        compiled = _compiled(deployment, parsed, response.stack, spec)
        unchanged = snapshot == plain and not spec.has_settings
        return replace(
            compiled,
            source_code=response.source_code,
            stored_id=response.id if unchanged else None,
            named_id=str(response.id),
        )


def _compiled(
    deployment: Deployment, snapshot: PipelineSnapshotBase, model: StackResponse, spec: RunSpec
) -> Compiled:
    substitutions = snapshot.pipeline_configuration.substitutions
    spec.check_run_name(snapshot.run_name_template, substitutions)
    steps = {name: step.config.name for name, step in snapshot.step_configurations.items()}
    name = snapshot.pipeline_configuration.name
    spec = for_steps(spec, steps, name, dynamic=deployment.dynamic)
    stack, values = use_stack(model)
    layers = deployment.layers
    if Origin.COMPONENT not in layers:
        layers = _with_component(layers, component_defaults(values))
    complete = replace(deployment, layers=layers, notes=(*deployment.notes, *spec.notes))
    complete = complete.with_layers(spec.layers, spec.step_layers)
    if not spec.own_code:
        check_foreign_docker(complete, spec.source_root, spec.layers, spec.step_layers)
    if spec.has_settings:
        # A resume of the run knows them from the stored snapshot alone.
        key = f"orchestrator:{stack.orchestrator.name}"
        changed = with_spec(snapshot.model_dump(mode="json"), complete, key, spec)
        snapshot = PipelineSnapshotBase.model_validate(changed)
    return assemble(complete, snapshot, stack, values, spec)


def _with_component(layers: Layers, component: SettingsLayer) -> Layers:
    """Move the component's values out of the pipeline's settings, where ZenML compiles them to.

    Read from `config/compiler.py:252`, ZenML 0.98.0.
    """
    pipeline = layers.get(Origin.CODE_PIPELINE, SettingsLayer())
    own = {k: v for k, v in pipeline.settings.items() if component.settings.get(k) != v}
    return {
        **layers,
        Origin.CODE_PIPELINE: replace(pipeline, settings=own),
        Origin.COMPONENT: component,
    }


def _find(name_or_id: str, spec: RunSpec) -> PipelineSnapshotResponse:
    client = Client()
    try:
        return client.zen_store.get_snapshot(UUID(name_or_id))
    except ValueError:
        pass
    except KeyError as error:
        raise NotFoundError(f"ZenML has no snapshot {name_or_id}.") from error
    found = client.list_snapshots(name=f"equals:{name_or_id}", named_only=True, hydrate=True)
    if found.total == 0:
        raise NotFoundError(
            f"{spec.where(('deployment',))}: ZenML has no snapshot '{name_or_id}', and there"
            " is no file of that name.",
            hint="'zenml pipeline snapshot list' shows the snapshots that have names.",
        )
    if found.total > 1:
        raise spec.error(
            ("deployment",),
            f"{found.total} pipelines have a snapshot named '{name_or_id}'.",
            "Give the snapshot's id instead of its name.",
        )
    return client.zen_store.get_snapshot(found.items[0].id)


def _stack_of(file: DeploymentFile) -> StackResponse:
    client = Client()
    for name_or_id in (file.stack.id, file.stack.name):
        with contextlib.suppress(KeyError):
            return client.get_stack(name_or_id, allow_name_prefix_match=False)
    raise NotFoundError(
        f"The deployment was compiled for the stack '{file.stack.name}' ({file.stack.id}), and this"
        " ZenML has none of that id or name.",
        hint="Log in to the ZenML server that has it, or compile the pipeline again.",
    )


def _are_ours(settings: Mapping[str, set[str]]) -> bool:
    """Return whether modalrun compiled these orchestrator settings, for a stack of any flavor."""
    names = set[str]().union(*settings.values())
    return bool(names) and names <= FIELD_NAMES
