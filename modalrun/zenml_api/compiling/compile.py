"""Compile the pipeline of a run spec with ZenML's own compiler."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import zenml
from pydantic import ValidationError
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.constants import ENV_ZENML_ACTIVE_STACK_ID
from zenml.exceptions import (
    AuthorizationException,
    SettingsResolvingError,
    ZenKeyError,
    ZenMLBaseException,
)
from zenml.execution.pipeline.utils import prevent_pipeline_execution
from zenml.models import PipelineSnapshotBase, StackResponse
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.stack import Stack
from zenml.utils import env_utils, source_utils

from modalrun.errors import Interrupted, ModalrunError, UsageError
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.stack import StackDescription
from modalrun.spec.messages import path_name
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, flatten
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.validation import Mistakes, validation_message
from modalrun.util.nearest import nearest
from modalrun.zenml_api.compiling.code_settings import read_code, set_settings
from modalrun.zenml_api.compiling.parameter_checks import (
    check_pipeline_parameters,
    check_step_parameters,
    read_run_configuration,
)
from modalrun.zenml_api.compiling.requirements import with_packages
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.lazy_integrations import activate_lazily
from modalrun.zenml_api.orchestrator_config import (
    ModalOrchestratorConfig,
    component_config,
    component_defaults,
    credentials,
)
from modalrun.zenml_api.stacks import describe_stack, find_stack, load_stack, orchestrator_of

VERSION: str = zenml.__version__

_CONFIGURE_ARGUMENTS = {
    "init_hook_source": "on_init",
    "init_hook_kwargs": "on_init_kwargs",
    "cleanup_hook_source": "on_cleanup",
    "failure_hook_source": "on_failure",
    "success_hook_source": "on_success",
    "start_hook_source": "on_start",
    "end_hook_source": "on_end",
    "pause_hook_source": "on_pause",
    "resume_hook_source": "on_resume",
    "enable_heartbeat": "enable_heartbeat",
    "substitutions": "substitutions",
}
"""Keys of a run configuration that `Compiler` doesn't apply, and the arguments of
`Pipeline.configure` that do (`zenml/config/compiler.py:182`)."""


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
    """

    deployment: Deployment
    snapshot: PipelineSnapshotBase
    stack: Stack
    stack_description: StackDescription
    source_code: str | None = None
    stored_id: UUID | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def pipeline_docker(self) -> dict[str, Any]:
        """The Docker settings of the pipeline as ZenML stores them."""
        configuration = self.snapshot.pipeline_configuration.model_dump(mode="json")
        return dict(configuration["settings"].get("docker") or {})


def compile_spec(spec: RunSpec) -> Compiled:
    """Import and compile the pipeline of a run spec for its stack, with our orchestrator in it.

    Nothing is stored in ZenML, and neither the user's configuration nor the active stack changes.

    Raises:
        UsageError: The pipeline can't be imported, isn't one, or doesn't fit the spec.
        NotFoundError: There is no such stack.
    """
    source_utils.set_custom_source_root(str(spec.source_root))
    sys.path.insert(0, str(spec.source_root))
    pipeline = _import_pipeline(spec).copy()
    with translated():
        stack, config = use_stack(find_stack(spec.stack, at=f"{spec.source.where(('stack',))}: "))
        run_configuration = _checked_configuration(pipeline, spec)
        # Without it every array and model would be compiled to the pickling materializer.
        activate_lazily()
        layer, steps, notes = _resolve_settings(pipeline, spec, stack.orchestrator.name)
        try:
            snapshot = Compiler().compile(pipeline, stack, run_configuration)
            snapshot = env_utils.substitute_env_variable_placeholders(snapshot)
        except ModalrunError:
            raise
        except Exception as error:
            raise _compile_error(spec, error) from error
        _refuse_builds(stack, snapshot)
        labels = {"": layer.labels, **{name: step.labels for name, step in steps.items()}}
        deployment = read_snapshot(snapshot.model_dump(mode="json"), labels=labels)
        return assemble(
            replace(
                deployment,
                layers={**deployment.layers, Origin.COMPONENT: component_defaults(config)},
                notes=(*spec.notes, *notes),
            ),
            snapshot,
            stack,
            config,
            spec,
            source_code=pipeline.source_code,
        )


def use_stack(model: StackResponse) -> tuple[Stack, ModalOrchestratorConfig]:
    """Make a stack the active one of this process, with our orchestrator in it.

    Returns:
        The stack, and the configuration of the orchestrator that it has in ZenML.

    Raises:
        UsageError: The configuration of the stack's orchestrator is wrong.
    """
    stack = load_stack(model)
    os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
    return stack, component_config(orchestrator_of(model))


def assemble(
    deployment: Deployment,
    snapshot: PipelineSnapshotBase,
    stack: Stack,
    config: ModalOrchestratorConfig,
    spec: RunSpec,
    *,
    source_code: str | None,
    stored_id: UUID | None = None,
) -> Compiled:
    """Add a deployment's packages and its orchestrator's Modal token.

    Raises:
        UsageError: The packages can't be gathered, or the token refers to a missing secret.
    """
    on_modal = spec.target == "modal"
    return Compiled(
        with_packages(deployment, stack, spec.source_root, built=on_modal),
        snapshot,
        stack,
        describe_stack(stack),
        source_code=source_code,
        stored_id=stored_id,
        credentials=credentials(config) if on_modal else None,
    )


def _resolve_settings(
    pipeline: Pipeline, spec: RunSpec, orchestrator: str
) -> tuple[SettingsLayer, dict[str, SettingsLayer], list[str]]:
    """Resolve the sandbox settings of the code and the spec, and give ZenML the result."""
    code, notes = read_code(
        pipeline.configuration.settings, f"pipeline '{pipeline.name}' in code", orchestrator
    )
    layers: Layers = {Origin.CODE_PIPELINE: code, **spec.layers}
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


def _refuse_builds(stack: Stack, snapshot: PipelineSnapshotBase) -> None:
    builds = stack.get_docker_builds(snapshot)
    if builds:
        steps = sorted({build.step_name for build in builds if build.step_name})
        raise UsageError(
            f"{'Step ' + ', '.join(steps) if steps else 'The pipeline'} needs an image that ZenML"
            " builds (for a step operator), which is not supported yet.",
            hint="Remove the step operator from the step: modalrun runs it in the sandbox.",
        )


def _import_pipeline(spec: RunSpec) -> Pipeline:
    module_name, _, attribute = spec.pipeline.rpartition(".")
    try:
        # A script without a main guard would run its pipeline while it is imported.
        with prevent_pipeline_execution():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise spec.error(
                ("pipeline",),
                f"there is no module '{error.name}' below the source root {spec.source_root}.",
                "The source root is the nearest folder with '.zen' above the run spec, else the"
                " run spec's own; 'source_root:' sets another.",
            ) from error
        raise _import_failed(spec, module_name, error) from error
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        raise _import_failed(spec, module_name, error) from error
    found = getattr(module, attribute, None)
    if isinstance(found, Pipeline):
        return found
    pipelines = sorted(name for name, value in vars(module).items() if isinstance(value, Pipeline))
    close = nearest(attribute, pipelines)
    if close:
        hint = f"Did you mean '{module_name}.{close}'?"
    elif pipelines:
        hint = f"Pipelines in '{module_name}': {', '.join(pipelines)}."
    else:
        hint = "A pipeline is a function decorated with '@pipeline' from zenml."
    if not hasattr(module, attribute):
        problem = f"the module '{module_name}' has no '{attribute}'."
    else:
        problem = (
            f"'{spec.pipeline}' is not a ZenML pipeline, it is of type '{type(found).__name__}'."
        )
    raise spec.error(("pipeline",), problem, hint)


def _import_failed(spec: RunSpec, module_name: str, error: BaseException) -> UsageError:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if Path(f.filename).is_relative_to(spec.source_root)]
    place = f" ({inside[-1].filename}:{inside[-1].lineno})" if inside else ""
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}:{error.lineno})"
    return spec.error(
        ("pipeline",),
        f"importing '{module_name}' failed{place}: {type(error).__name__}: {error}",
        "Fix the import error; --debug shows the whole traceback.",
    )


def _checked_configuration(pipeline: Pipeline, spec: RunSpec) -> PipelineRunConfiguration:
    """Prepare the pipeline with a spec's run configuration, and return that.

    Raises:
        UsageError: One line for each mistake in the configuration, parameters and named steps.
    """
    mistakes = Mistakes()
    configuration: PipelineRunConfiguration | None = None
    with mistakes.collecting():
        configuration = read_run_configuration(spec)
    before = len(mistakes.found)
    check_pipeline_parameters(pipeline, spec, mistakes)
    if len(mistakes.found) == before:
        # The graph, and with it the names of the steps, is known only once the function was called.
        with mistakes.collecting():
            _prepare(pipeline, configuration, spec)
            check_step_parameters(pipeline, spec, mistakes)
    mistakes.raise_all()
    assert configuration is not None
    return configuration


def _prepare(
    pipeline: Pipeline, configuration: PipelineRunConfiguration | None, spec: RunSpec
) -> None:
    """Give the pipeline its parameters and hooks, and call its function."""
    given = spec.run_configuration.get("parameters")
    parameters = given if configuration is None else configuration.parameters
    others = {
        argument: getattr(configuration, key)
        for key, argument in _CONFIGURE_ARGUMENTS.items()
        if getattr(configuration, key, None) is not None
    }
    try:
        with pipeline.__suppress_configure_warnings__():
            pipeline.configure(parameters=parameters or None, **others)
        missing = pipeline.missing_parameters
        if missing:
            raise spec.error(
                ("parameters",),
                f"the pipeline '{pipeline.name}' needs values for: {', '.join(sorted(missing))}.",
                "Write them under 'parameters:'.",
            )
        pipeline.prepare()
    except ModalrunError:
        raise
    except Exception as error:
        raise _compile_error(spec, error) from error


def _compile_error(spec: RunSpec, error: Exception) -> ModalrunError:
    """Return our error for one of ZenML's compiler; a cause that names the value comes first."""
    cause = error if isinstance(error, ValidationError) else error.__cause__ or error.__context__
    if isinstance(cause, ValidationError):
        where, problem = validation_message(cause)
        name = path_name(where) or spec.pipeline
        # ZenML names the field alone; where the file has it once, that is the place.
        places = [path for path in spec.source.lines if where and path[-len(where) :] == where]
        if len(places) == 1:
            return spec.error(places[0], f"'{path_name(places[0])}'{problem}")
        return UsageError(
            f"{spec.source.path}: compiling '{spec.pipeline}' failed: '{name}', in the settings or"
            f" parameters of the code or the run spec{',' if problem.startswith(' ') else ''}"
            f"{problem}"
        )
    if isinstance(error, AuthorizationException | ZenKeyError):
        with translated():
            raise error
    if isinstance(error, SettingsResolvingError | ZenMLBaseException | ValueError | TypeError):
        return UsageError(
            f"{spec.source.path}: compiling '{spec.pipeline}' failed: {first_line(error)}"
        )
    return UsageError(
        f"{spec.source.path}: compiling '{spec.pipeline}' failed: {type(error).__name__}:"
        f" {first_line(error)}",
        hint="--debug shows the whole traceback.",
    )
