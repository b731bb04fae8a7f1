"""Compile the pipeline of a run spec with ZenML's own compiler."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID
from zenml.exceptions import ZenKeyError
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.materializer_registry import materializer_registry
from zenml.models import PipelineSnapshotBase, StackResponse
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.stack import Stack
from zenml.utils import env_utils, pydantic_utils, source_utils, string_utils

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.foreign_docker import check_foreign_docker
from modalrun.plan.stack import StackDescription
from modalrun.run.rerun import Rerun
from modalrun.spec.overrides import merged
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, flatten
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.schema import HOOK_KEYS
from modalrun.spec.spec_record import SpecRecord
from modalrun.spec.validation import Mistakes
from modalrun.util import timeline
from modalrun.util.inputs import Inputs, watched
from modalrun.util.text import shell_word
from modalrun.zenml_api import config_files
from modalrun.zenml_api.compiling.code_settings import read_code, set_settings
from modalrun.zenml_api.compiling.module_places import Surroundings, check_places, code_folders
from modalrun.zenml_api.compiling.parameter_checks import (
    check_pipeline_parameters,
    check_step_parameters,
    read_run_configuration,
)
from modalrun.zenml_api.compiling.requirements import with_packages
from modalrun.zenml_api.compiling.user_code import import_pipeline, user_code
from modalrun.zenml_api.component import ComponentValues, component_defaults, component_values
from modalrun.zenml_api.docker_digest import docker_digest
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.lazy_integrations import activate_lazily
from modalrun.zenml_api.orchestrator_config import credentials
from modalrun.zenml_api.stack_description import describe_stack
from modalrun.zenml_api.stacks import find_stack, load_stack, orchestrator_of

_HOOK_ARGUMENTS = {key: argument for argument, key in HOOK_KEYS.items()}
"""Keys of a run configuration that have another name as arguments of `Pipeline.configure`. ZenML
ignores them in a file (`config/compiler.py:182`, 0.98.0)."""


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
        deployment: The pipeline in modalrun's own types, with its sandbox settings.
        snapshot: The pipeline in ZenML's types.
        stack: The stack it is compiled for, with our orchestrator in it.
        stack_description: The stack's properties that decide whether it works with Modal.
        source_code: The code of the pipeline function, which ZenML shows.
        stored_id: The id of the snapshot if ZenML has it stored unchanged.
        credentials: The Modal token of the stack's orchestrator. Never printed.
        inputs: What the pipeline's code read here; None if it was compiled before.
        named_id: The id of the snapshot that the run spec names.
        rerun: What is taken from an earlier run; None for a run of its own.
        unstored: The hashes of external artifacts that ZenML has not stored, by their ids.
    """

    deployment: Deployment
    snapshot: PipelineSnapshotBase
    stack: Stack
    stack_description: StackDescription
    source_code: str | None = None
    stored_id: UUID | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    inputs: Inputs | None = None
    named_id: str | None = None
    rerun: Rerun | None = None
    unstored: Mapping[UUID, str | None] = field(default_factory=dict)

    @property
    def docker_digest(self) -> str:
        """The digest of the Docker settings of the pipeline as ZenML stores them."""
        configuration = self.snapshot.pipeline_configuration.model_dump(mode="json")
        return docker_digest(configuration["settings"].get("docker") or {})


def compile_spec(spec: RunSpec, *, looks: bool = False) -> Compiled:
    """Import and compile the pipeline of a run spec for its stack, with our orchestrator in it.

    Neither the user's configuration nor the active stack changes. ZenML stores the values of
    external artifacts, and nothing else.

    Args:
        looks: Whether the result is only looked at: no external artifact is stored.

    Raises:
        UsageError: The pipeline can't be imported, isn't one, or doesn't fit the spec.
        NotFoundError: There is no such stack.
    """
    source_utils.set_custom_source_root(str(spec.source_root))
    docker = (spec.run_configuration.get("settings") or {}).get("docker") or {}
    sys.path[:0] = map(str, code_folders(spec.source_root, docker))
    with translated():
        # Before the import: modules read the active stack's components.
        with timeline.phase("load the stack"):
            at = f"{spec.where(('stack',))}: "
            stack, values = use_stack(find_stack(spec.stack, at=at))
        before = Surroundings()
        inputs, others = Inputs(), [str(config_files.folder())]
        with timeline.phase("import the pipeline"), watched(inputs, others):
            pipeline = import_pipeline(spec).copy()
        orchestrator = stack.orchestrator.name
        # Before the run configuration is merged into it.
        code = read_code(
            pipeline.configuration.settings, f"pipeline '{pipeline.name}' in code", orchestrator
        )
        with watched(inputs, others):
            spec, run_configuration = _checked_configuration(pipeline, spec)
        # Without it every array and model would be compiled to the pickling materializer.
        activate_lazily()
        layer, steps, notes = _resolve_settings(pipeline, spec, code, orchestrator)
        _check_secrets(pipeline, run_configuration)
        unstored = _leave_artifacts(pipeline) if looks else {}
        snapshot = _snapshot(pipeline, stack, run_configuration, spec)
        labels = {"": layer.labels, **{name: step.labels for name, step in steps.items()}}
        deployment = read_snapshot(snapshot.model_dump(mode="json"), labels=labels)
        deployment = replace(
            deployment,
            layers={**deployment.layers, Origin.COMPONENT: component_defaults(values)},
            notes=(*spec.notes, *notes),
        )
        compiled = assemble(deployment, snapshot, stack, values, spec)
        modules = {spec.pipeline.rpartition(".")[0], *deployment.modules}
        check_places(spec, before, modules, compiled.deployment.docker)
        return replace(compiled, source_code=pipeline.source_code, inputs=inputs, unstored=unstored)


def use_stack(model: StackResponse) -> tuple[Stack, ComponentValues]:
    """Make a stack the active one of this process, with our orchestrator in it.

    Returns:
        The stack, and the values of the orchestrator that it has in ZenML.

    Raises:
        UsageError: A value of the stack's orchestrator is wrong.
    """
    stack = load_stack(model)
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    return stack, component_values(orchestrator_of(model))


def assemble(
    deployment: Deployment,
    snapshot: PipelineSnapshotBase,
    stack: Stack,
    values: ComponentValues,
    spec: RunSpec,
) -> Compiled:
    """Add a deployment's packages and its orchestrator's Modal token.

    Raises:
        UsageError: The packages can't be gathered, or the token refers to a missing secret; or the
            spec of an earlier run, which may be somebody else's, names what it must not.
    """
    if spec.rerun is not None and spec.rerun.compiles:
        docker = (spec.rerun.given.data.get("settings") or {}).get("docker") or {}
        by_user = {Origin.COMMAND_LINE: SettingsLayer(docker=docker)}
        # Before the packages are gathered, which runs commands.
        check_foreign_docker(deployment, spec.source_root, by_user, {})
    on_modal = spec.target == "modal"
    return Compiled(
        with_packages(deployment, stack, spec.source_root, built=on_modal),
        snapshot,
        stack,
        describe_stack(stack),
        credentials=credentials(values) if on_modal else None,
    )


def _resolve_settings(
    pipeline: Pipeline, spec: RunSpec, code: tuple[SettingsLayer, list[str]], orchestrator: str
) -> tuple[SettingsLayer, dict[str, SettingsLayer], list[str]]:
    """Resolve the sandbox settings of the code and the spec, and give ZenML the result."""
    of_pipeline, notes = code
    layers: Layers = {Origin.CODE_PIPELINE: of_pipeline, **spec.layers}
    resolved = flatten(layers)
    steps: dict[str, SettingsLayer] = {}
    for name, invocation in pipeline.invocations.items():
        own, own_notes = read_code(
            invocation.step.configuration.settings, f"step '{name}' in code", orchestrator
        )
        notes += own_notes
        steps[name] = flatten(layers, {Origin.CODE_STEP: own, **spec.step_layers.get(name, {})})
    set_settings(pipeline, resolved, steps, orchestrator)
    return resolved, steps, notes


def _snapshot(
    pipeline: Pipeline, stack: Stack, run_configuration: PipelineRunConfiguration, spec: RunSpec
) -> PipelineSnapshotBase:
    """Compile a prepared pipeline with ZenML; the result has a record of the run spec."""
    with timeline.phase("compile"), user_code(spec, f"compiling '{spec.pipeline}'"):
        # The pipeline has them all. These two would be added to it once more.
        run_configuration = run_configuration.model_copy(update={"tags": None, "secrets": None})
        snapshot = Compiler().compile(pipeline, stack, run_configuration)
        snapshot = _with_variables(snapshot, spec)
    _refuse_builds(stack, snapshot)
    record = SpecRecord({}).with_keys(spec.source.data, spec.command_line)
    record = record.as_read(spec.run_configuration)
    snapshot.client_environment.update(record.to_environment())
    return snapshot


def _refuse_builds(stack: Stack, snapshot: PipelineSnapshotBase) -> None:
    builds = stack.get_docker_builds(snapshot)
    if builds:
        steps = sorted({build.step_name for build in builds if build.step_name})
        raise UsageError(
            f"{'Step ' + ', '.join(steps) if steps else 'The pipeline'} needs an image that ZenML"
            " builds (for a step operator), which is not supported yet.",
            hint="Remove the step operator from the step: modalrun runs it in the sandbox.",
        )


def _leave_artifacts(pipeline: Pipeline) -> dict[UUID, str | None]:
    """Give the external artifacts an id, so that ZenML does not store their values.

    It stores those without one (`steps/step_invocation.py`, 0.98.0).

    Returns:
        The hash of each by its id, as ZenML would compute it (`artifacts/utils.py:287`, 0.98.0).
    """
    hashes: dict[UUID, str | None] = {}
    for invocation in pipeline.invocations.values():
        for artifact in invocation.external_artifacts.values():
            if artifact.id is None:
                artifact.id = uuid4()
                hashes[artifact.id] = None
                # Some hash what they have saved.
                with contextlib.suppress(Exception):
                    kind = artifact.materializer or materializer_registry[type(artifact.value)]
                    if not isinstance(kind, type):
                        kind = source_utils.load_and_validate_class(kind, BaseMaterializer)
                    hashes[artifact.id] = kind(uri="").compute_content_hash(artifact.value)
    return hashes


def _check_secrets(pipeline: Pipeline, configuration: PipelineRunConfiguration) -> None:
    """Raise a NotFoundError for all secrets that ZenML lacks; its compiler stops at the first."""
    named = [*pipeline.configuration.secrets]
    for invocation in pipeline.invocations.values():
        named += invocation.step.configuration.secrets
    for step in (configuration.steps or {}).values():
        named += step.secrets or ()
    missing = [name for name in dict.fromkeys(map(str, named)) if not _is_secret(name)]
    if missing:
        raise NotFoundError(
            f"ZenML has no secret {' and no '.join(map(repr, missing))}; 'secrets' of the pipeline"
            " or a step name it.",
            hint=f"'zenml secret create {shell_word(missing[0])} --KEY=VALUE' creates it; 'zenml"
            " secret list' shows what there is. A Modal secret is named under 'modal: secrets:' of"
            " a run spec.",
        )


def _is_secret(name_or_id: str) -> bool:
    try:
        Client().get_secret(name_or_id, hydrate=False)
    except ZenKeyError:
        # Several have it.
        raise
    except KeyError:
        return False
    return True


def _with_variables(snapshot: PipelineSnapshotBase, spec: RunSpec) -> PipelineSnapshotBase:
    """Replace the variables in values of the code, as ZenML does; not again in the spec's."""
    literals = {*spec.source.literals, *spec.command_line.literals}
    return string_utils.substitute_string(
        snapshot,
        lambda text: (
            text if text in literals else env_utils.substitute_env_variable_placeholders(text)
        ),
    )


def _checked_configuration(
    pipeline: Pipeline, spec: RunSpec
) -> tuple[RunSpec, PipelineRunConfiguration]:
    """Prepare the pipeline with a spec's run configuration.

    Returns:
        The spec as it is read for this pipeline, and its run configuration.

    Raises:
        UsageError: One line for each mistake in the configuration, parameters and named steps.
    """
    mistakes = Mistakes()
    configuration: PipelineRunConfiguration | None = None
    spec = check_pipeline_parameters(pipeline, spec, mistakes)
    fits = not mistakes.found
    with mistakes.collecting():
        configuration = _with_options_in_code(pipeline, read_run_configuration(spec))
    # The graph, and with it the names of the steps, is known only once the function was called.
    # After a mistake it may fail for want of an argument.
    with mistakes.collecting() if fits and configuration else contextlib.suppress(UsageError):
        _prepare(pipeline, configuration, spec)
        spec = check_step_parameters(pipeline, spec, mistakes)
    mistakes.raise_all()
    spec = replace(spec, notes=(*spec.notes, *mistakes.notes))
    configuration = _with_options_in_code(pipeline, read_run_configuration(spec))
    if configuration.run_name is not None:
        spec.check_run_name(configuration.run_name, pipeline.configuration.substitutions)
    return spec, configuration


def _with_options_in_code(
    pipeline: Pipeline, configuration: PipelineRunConfiguration
) -> PipelineRunConfiguration:
    """Add what the module gave to `with_options`, which ZenML prefers to the file."""
    options = {name: pipeline._run_args.get(name) for name in ("run_name", "step_configurations")}
    options["steps"] = options.pop("step_configurations")
    given = {key: value for key, value in options.items() if value is not None}
    return pydantic_utils.update_model(
        configuration, PipelineRunConfiguration.model_validate(given)
    )


def _prepare(
    pipeline: Pipeline, configuration: PipelineRunConfiguration | None, spec: RunSpec
) -> None:
    """Configure the pipeline as `with_options(config_path=...)` does, and call its function."""
    if configuration is None:
        # Only to know the names of the steps: the function may fail without the rest.
        given = {"parameters": spec.run_configuration.get("parameters")}
    else:
        given = {key: getattr(configuration, key) for key in type(configuration).model_fields}
        # Those of sandboxes, too, which modalrun resolves itself afterwards.
        written = (one.data.get("settings") or {} for one in (spec.source, spec.command_line))
        settings = {k: v for k, v in merged(*written).items() if v is not None}
        given["settings"] = {**settings, **(configuration.settings or {})}
    known = inspect.signature(pipeline.configure).parameters
    values = {
        argument: value
        for key, value in given.items()
        if (argument := _HOOK_ARGUMENTS.get(key, key)) in known and value is not None
    }
    with user_code(spec, f"compiling '{spec.pipeline}'"):
        with pipeline.__suppress_configure_warnings__():
            pipeline.configure(**values)
        missing = pipeline.missing_parameters
        if missing:
            raise spec.error(
                ("parameters",),
                f"the pipeline '{pipeline.name}' needs values for: {', '.join(sorted(missing))}.",
                "Write them under 'parameters:', or give them as in '--param NAME=VALUE'.",
            )
        pipeline.prepare()
