"""Compiled deployments that are not compiled now: from a file, or stored in ZenML."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import zenml
from pydantic import ValidationError
from zenml.client import Client
from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID
from zenml.models import (
    PipelineSnapshotBase,
    PipelineSnapshotResponse,
    StackResponse,
)

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.deployment_file import AGAIN, DeploymentFile
from modalrun.spec.fields import FIELD_NAMES
from modalrun.spec.precedence import Layers, Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.zenml_api.compiling.code_settings import (
    OUR_FLAVORS,
    component_config,
    component_defaults,
    credentials,
)
from modalrun.zenml_api.compiling.compile import Compiled
from modalrun.zenml_api.compiling.requirements import with_packages
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.stacks import load_stack, orchestrator_of, stack_facts


def from_file(held: DeploymentFile, spec: RunSpec) -> Compiled:
    """The deployment of a file, ready to be stored in ZenML and run.

    Raises:
        UsageError: This ZenML can't read it.
        NotFoundError: ZenML has no stack of that id or name.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    snapshot = _changed(held.snapshot, spec)
    try:
        parsed = PipelineSnapshotBase.model_validate(snapshot)
    except ValidationError as error:
        raise UsageError(
            f"The deployment was compiled by ZenML {held.zenml_version}; this ZenML"
            f" ({zenml.__version__}) can't read it: {error.error_count()} fields don't fit.",
            hint=AGAIN,
        ) from error
    with translated():
        model = _stack_of(held)
        deployment = held.deployment
        if (cache := spec.run_configuration.get("enable_cache")) is not None:
            deployment = deployment.with_caching(bool(cache))
        return _compiled(deployment, parsed, model, spec, source_code=held.source_code)


def stored(name_or_id: str, spec: RunSpec) -> Compiled:
    """A snapshot that is stored in ZenML.

    Args:
        name_or_id: Its id, or its name where only one pipeline has a snapshot of that name.
        spec: The run spec; its `run_name` and `enable_cache` make a new snapshot of it.

    Raises:
        NotFoundError: ZenML has no such snapshot.
        UsageError: Several pipelines have one of that name, or its stack is gone.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        response = _find(name_or_id, spec)
        if response.stack is None:
            raise UsageError(f"The stack that the snapshot {response.id} was compiled for is gone.")
        values = {name: getattr(response, name) for name in PipelineSnapshotBase.model_fields}
        plain = PipelineSnapshotBase(**values).model_dump(mode="json")
        snapshot = _changed(plain, spec)
        orchestrator = orchestrator_of(response.stack)
        ours = orchestrator.flavor_name in OUR_FLAVORS or _has_our_settings(plain)
        keys = {key for settings in _all_settings(plain) for key in settings}
        ignored = set() if ours else {k for k in keys if k.startswith("orchestrator")}
        deployment = read_snapshot(snapshot, ignored_settings=ignored)
        notes = []
        if ignored:
            notes.append(
                f"the snapshot's settings for the orchestrator flavor '{orchestrator.flavor_name}'"
                " have no effect on Modal"
            )
        elif not keys & {f"orchestrator:{orchestrator.name}"}:
            notes.append(
                "the snapshot holds no orchestrator settings; ZenML keeps those of the code only"
                " where the stack's orchestrator has some"
            )
        return _compiled(
            replace(deployment, notes=tuple(notes)),
            PipelineSnapshotBase.model_validate(snapshot),
            response.stack,
            spec,
            stored_id=response.id if snapshot == plain else None,
            source_code=response.source_code,
        )


def _compiled(
    deployment: Deployment,
    snapshot: PipelineSnapshotBase,
    model: StackResponse,
    spec: RunSpec,
    *,
    stored_id: UUID | None = None,
    source_code: str | None = None,
) -> Compiled:
    spec.check_steps(snapshot.step_configurations, snapshot.pipeline_configuration.name)
    stack = load_stack(model)
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    config = component_config(orchestrator_of(model))
    written = deployment.written
    if Origin.COMPONENT not in written:
        written = _with_component(written, component_defaults(config))
    complete = with_packages(
        replace(deployment, written=written).with_layers(spec.layers, spec.step_layers),
        stack,
        spec.source_root,
        built=spec.target == "modal",
    )
    return Compiled(
        replace(complete, notes=(*deployment.notes, *spec.notes)),
        snapshot,
        stack,
        stack_facts(stack),
        source_code=source_code,
        stored_id=stored_id,
        credentials=credentials(config) if spec.target == "modal" else None,
    )


def _with_component(written: Layers, component: SettingsLayer) -> Layers:
    """What a deployment says, with the component's values in their own place.

    ZenML compiles them into the pipeline's settings (`config/compiler.py:252`).
    """
    pipeline = written.get(Origin.CODE_PIPELINE, SettingsLayer())
    own = {k: v for k, v in pipeline.settings.items() if component.settings.get(k) != v}
    return {
        **written,
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
            f"{spec.source.where(('deployment',))}: ZenML has no snapshot '{name_or_id}', and there"
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


def _stack_of(held: DeploymentFile) -> StackResponse:
    client = Client()
    for name_or_id in (held.stack.id, held.stack.name):
        with contextlib.suppress(KeyError):
            return client.get_stack(name_or_id, allow_name_prefix_match=False)
    raise NotFoundError(
        f"The deployment was compiled for the stack '{held.stack.name}' ({held.stack.id}), and this"
        " ZenML has none of that id or name.",
        hint="Log in to the ZenML server that has it, or compile the pipeline again.",
    )


def _changed(snapshot: Mapping[str, Any], spec: RunSpec) -> dict[str, Any]:
    """A snapshot with the run name and caching of the spec, which need no compiling."""
    changed = dict(snapshot)
    name, cache = (spec.run_configuration.get(key) for key in ("run_name", "enable_cache"))
    if name is not None:
        changed["run_name_template"] = str(name)
    if cache is not None:
        flag = {"enable_cache": bool(cache)}
        changed["pipeline_configuration"] = {**snapshot["pipeline_configuration"], **flag}
        changed["step_configurations"] = {
            step: {**values, "config": {**values["config"], **flag}}
            for step, values in snapshot["step_configurations"].items()
        }
    return changed


def _all_settings(snapshot: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = snapshot["step_configurations"].values()
    return [
        snapshot["pipeline_configuration"]["settings"],
        *(step["step_config_overrides"]["settings"] for step in steps),
    ]


def _has_our_settings(snapshot: Mapping[str, Any]) -> bool:
    """Whether its orchestrator settings were compiled by modalrun, for a stack of any flavor."""
    given = {
        name
        for settings in _all_settings(snapshot)
        for key, values in settings.items()
        if key.startswith("orchestrator")
        for name in values
    }
    return bool(given) and given <= FIELD_NAMES
