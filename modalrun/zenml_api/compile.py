"""Run spec -> compiled deployment, with ZenML's own compiler."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import zenml
from pydantic import ConfigDict, ValidationError
from zenml.client import Client
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
from zenml.utils.pydantic_utils import validate_function_args

from modalrun.errors import Interrupted, ModalrunError, NotFoundError, UsageError
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.stack import StackFacts
from modalrun.spec.messages import path_name
from modalrun.spec.mistakes import Mistakes, together
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, flatten
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.validation import validation_message, validation_messages
from modalrun.util.nearest import nearest
from modalrun.zenml_api.code_settings import (
    component_config,
    component_defaults,
    credentials,
    read_code,
    set_settings,
)
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.lazy_integrations import activate_lazily
from modalrun.zenml_api.nested_keys import check_nested
from modalrun.zenml_api.requirements import with_packages
from modalrun.zenml_api.stacks import orchestrator_of, stack_facts, stand_in

VERSION: str = zenml.__version__

_HOOK_ARGUMENTS = {
    "init_hook_source": "on_init",
    "init_hook_kwargs": "on_init_kwargs",
    "cleanup_hook_source": "on_cleanup",
    "failure_hook_source": "on_failure",
    "success_hook_source": "on_success",
    "start_hook_source": "on_start",
    "end_hook_source": "on_end",
    "pause_hook_source": "on_pause",
    "resume_hook_source": "on_resume",
}
"""Keys of a run configuration that `Compiler` doesn't apply, and the arguments of
`Pipeline.configure` that do (`zenml/config/compiler.py:182`)."""

_CONFIGURED_HERE = ("enable_heartbeat", "substitutions")


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline, not yet stored in ZenML unless it came from there.

    Attributes:
        deployment: The pipeline as modalrun sees it, with all that is said about its sandboxes.
        snapshot: As ZenML sees it.
        stack: The stack it is compiled for, with our orchestrator in it.
        facts: What keeps the stack from working with Modal, or doesn't.
        source_code: The code of the pipeline function, which ZenML shows.
        stored_id: The id of the snapshot where it is in ZenML as it is.
        credentials: The Modal token of the stack's orchestrator. Never printed.
    """

    deployment: Deployment
    snapshot: PipelineSnapshotBase
    stack: Stack
    facts: StackFacts
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
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    source_utils.set_custom_source_root(str(spec.source_root))
    sys.path.insert(0, str(spec.source_root))
    pipeline = _import_pipeline(spec).copy()
    with translated():
        model = find_stack(spec)
        stack = stand_in(model)
        os.environ[ENV_ZENML_ACTIVE_STACK_ID] = str(stack.id)
        config = component_config(orchestrator_of(model))
        run_configuration = _checked(pipeline, spec)
        # Without it every array and model would be compiled to the pickling materializer.
        activate_lazily()
        written, steps, notes = _resolve(pipeline, spec, stack.orchestrator.name)
        try:
            snapshot = Compiler().compile(pipeline, stack, run_configuration)
            snapshot = env_utils.substitute_env_variable_placeholders(snapshot)
        except ModalrunError:
            raise
        except Exception as error:
            raise _compile_error(spec, error) from error
        facts = stack_facts(stack)
    _refuse_builds(stack, snapshot)
    labels = {"": written.labels, **{name: step.labels for name, step in steps.items()}}
    deployment = with_packages(
        read_snapshot(snapshot.model_dump(mode="json"), labels=labels),
        stack,
        spec.source_root,
        built=spec.target == "modal",
    )
    return Compiled(
        replace(
            deployment,
            written={**deployment.written, Origin.COMPONENT: component_defaults(config)},
            notes=(*spec.notes, *notes),
        ),
        snapshot,
        stack,
        facts,
        source_code=pipeline.source_code,
        credentials=credentials(config) if spec.target == "modal" else None,
    )


def _resolve(
    pipeline: Pipeline, spec: RunSpec, orchestrator: str
) -> tuple[SettingsLayer, dict[str, SettingsLayer], list[str]]:
    """Resolve what the code and the spec say about sandboxes, and give ZenML the result."""
    code, notes = read_code(
        pipeline.configuration.settings, f"pipeline '{pipeline.name}' in code", orchestrator
    )
    places: Layers = {Origin.CODE_PIPELINE: code, **spec.places}
    written = flatten(places)
    steps: dict[str, SettingsLayer] = {}
    for name, invocation in pipeline.invocations.items():
        own, own_notes = read_code(
            invocation.step.configuration.settings, f"step '{name}' in code", orchestrator
        )
        notes += own_notes
        steps[name] = flatten(places, {Origin.CODE_STEP: own, **spec.step_places.get(name, {})})
    set_settings(pipeline, written, steps, orchestrator)
    return written, steps, notes


def _refuse_builds(stack: Stack, snapshot: PipelineSnapshotBase) -> None:
    builds = stack.get_docker_builds(snapshot)
    if builds:
        steps = sorted({build.step_name for build in builds if build.step_name})
        raise UsageError(
            f"{'Step ' + ', '.join(steps) if steps else 'The pipeline'} needs an image that ZenML"
            " builds (for a step operator), which is not supported yet.",
            hint="Remove the step operator from the step: modalrun runs it in the sandbox.",
        )


def find_stack(spec: RunSpec) -> StackResponse:
    """The stack that a spec names, or the active one.

    Raises:
        NotFoundError: ZenML has no such stack.
    """
    client = Client()
    if spec.stack is None:
        return client.active_stack_model
    try:
        return client.get_stack(spec.stack, allow_name_prefix_match=False)
    except KeyError:
        names = [s.name for s in client.list_stacks(size=50).items]
        close = nearest(spec.stack, names)
        raise NotFoundError(
            f"{spec.source.where(('stack',))}: ZenML has no stack '{spec.stack}'.",
            hint=f"Did you mean '{close}'?" if close else f"There are: {', '.join(names)}.",
        ) from None


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
        "Mend the module; --debug shows the whole traceback.",
    )


def _checked(pipeline: Pipeline, spec: RunSpec) -> PipelineRunConfiguration:
    """The run configuration of a spec, with which the pipeline is prepared.

    Raises:
        UsageError: Everything that can be found wrong with the configuration, the parameters and
            the steps that the spec names; a line for each.
    """
    mistakes = Mistakes()
    configuration: PipelineRunConfiguration | None = None
    with mistakes.collecting():
        check_nested(spec)
    with mistakes.collecting():
        configuration = _run_configuration(spec)
    before = len(mistakes.found)
    _check_parameters(pipeline, spec, mistakes)
    if len(mistakes.found) == before:
        # The graph, and with it the names of the steps, is known only once the function was called.
        with mistakes.collecting():
            _prepare(pipeline, configuration, spec)
            _check_steps(pipeline, spec, mistakes)
    mistakes.raise_all()
    assert configuration is not None
    return configuration


def _run_configuration(spec: RunSpec) -> PipelineRunConfiguration:
    given = dict(spec.run_configuration)
    try:
        parsed = PipelineRunConfiguration.model_validate(given)
        return env_utils.substitute_env_variable_placeholders(parsed)
    except ValidationError as error:
        found = [
            spec.error(where, f"'{path_name(where)}'{problem}")
            for where, problem in validation_messages(error, given)
        ]
        raise together(found) from error
    except KeyError as error:
        raise UsageError(
            f"{spec.source.path}: {error.args[0]}", hint="Set the environment variable."
        ) from error
    except (TypeError, ValueError) as error:
        # Some of ZenML's own validators raise something else than pydantic's errors.
        raise UsageError(
            f"{spec.source.path}: ZenML can't read the run configuration: {first_line(error)}"
        ) from error


def _unknown_parameter(owner: str, name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    """Describe a parameter that a pipeline or step does not have: the problem, and a hint."""
    close = nearest(name, known)
    return (
        f"{owner} has no parameter '{name}'.",
        f"Did you mean '{close}'?" if close else f"It has: {', '.join(known) or 'none'}.",
    )


def _check_parameters(pipeline: Pipeline, spec: RunSpec, mistakes: Mistakes) -> None:
    """Compare the parameters of a spec with the pipeline's: their names, and their types."""
    known = inspect.signature(pipeline.entrypoint).parameters
    given = spec.run_configuration.get("parameters") or {}
    right = {}
    for name, value in given.items():
        if name in known:
            right[name] = value
            continue
        problem, hint = _unknown_parameter(f"the pipeline '{pipeline.name}'", name, known)
        mistakes.found.append(spec.error(("parameters", name), problem, hint))
    try:
        values = env_utils.substitute_env_variable_placeholders(right)
        fitting = {**(pipeline.configuration.parameters or {}), **values}
        validate_function_args(pipeline.entrypoint, ConfigDict(), **fitting)
    except ValidationError as error:
        for where, problem in validation_messages(error, fitting):
            if where[:1] and where[0] in right:
                at = ("parameters", *where)
                mistakes.found.append(spec.error(at, f"'{path_name(at)}'{problem}"))
    except (KeyError, TypeError, ValueError):
        # A type that pydantic can't check, or a variable that isn't set: ZenML says so.
        pass


def _prepare(
    pipeline: Pipeline, configuration: PipelineRunConfiguration | None, spec: RunSpec
) -> None:
    """Give the pipeline its parameters and hooks, and call its function."""
    given = spec.run_configuration.get("parameters")
    parameters = given if configuration is None else configuration.parameters
    hooks = {
        argument: getattr(configuration, key)
        for key, argument in _HOOK_ARGUMENTS.items()
        if getattr(configuration, key, None) is not None
    }
    others = {
        key: getattr(configuration, key)
        for key in _CONFIGURED_HERE
        if getattr(configuration, key, None) is not None
    }
    try:
        with pipeline.__suppress_configure_warnings__():
            pipeline.configure(parameters=parameters or None, **hooks, **others)
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


def _check_steps(pipeline: Pipeline, spec: RunSpec, mistakes: Mistakes) -> None:
    """Compare the steps that a spec names, and their parameters, with those of the graph."""
    with mistakes.collecting():
        spec.check_steps(pipeline.invocations, pipeline.name)
    for step, own in (spec.run_configuration.get("steps") or {}).items():
        if step not in pipeline.invocations:
            continue
        definition = pipeline.invocations[step].step.entrypoint_definition
        for name, value in (own.get("parameters") or {}).items():
            at = ("steps", step, "parameters", name)
            if name not in definition.inputs:
                problem, hint = _unknown_parameter(f"the step '{step}'", name, definition.inputs)
                mistakes.found.append(spec.error(at, problem, hint))
                continue
            try:
                definition.validate_input(
                    name, env_utils.substitute_env_variable_placeholders(value)
                )
            except RuntimeError as error:
                if isinstance(error.__cause__, ValidationError):
                    for where, problem in validation_messages(error.__cause__, {"value": value}):
                        full = (*at, *where[1:])
                        told = spec.error(full, f"'{path_name(full)}'{problem}")
                        mistakes.found.append(told)
            except (KeyError, TypeError, ValueError):
                # A variable that isn't set, or what only ZenML can judge: it does so later.
                pass


def _compile_error(spec: RunSpec, error: Exception) -> ModalrunError:
    """What went wrong while ZenML compiled; the cause that names the value beats its wrapper."""
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
