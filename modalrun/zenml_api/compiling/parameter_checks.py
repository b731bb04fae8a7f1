"""Check a run spec's run configuration and parameters against the pipeline and its steps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.utils import env_utils
from zenml.utils.pydantic_utils import validate_function_args

from modalrun.errors import UsageError
from modalrun.spec.messages import path_name
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.validation import Mistakes, one_error, validation_messages
from modalrun.util.nearest import did_you_mean
from modalrun.zenml_api.errors import first_line


def read_run_configuration(spec: RunSpec) -> PipelineRunConfiguration:
    """Parse the run configuration of a spec with ZenML's own model.

    Raises:
        UsageError: ZenML can't read it, or an environment variable that it names is not set.
    """
    given = dict(spec.run_configuration)
    try:
        parsed = PipelineRunConfiguration.model_validate(given)
        return env_utils.substitute_env_variable_placeholders(parsed)
    except ValidationError as error:
        found = [
            spec.error(where, f"'{path_name(where)}'{problem}")
            for where, problem in validation_messages(error, given)
        ]
        raise one_error(found) from error
    except KeyError as error:
        raise UsageError(
            f"{spec.source.path}: {error.args[0]}", hint="Set the environment variable."
        ) from error
    except (TypeError, ValueError) as error:
        # Some of ZenML's own validators raise something else than pydantic's errors.
        raise UsageError(
            f"{spec.source.path}: ZenML can't read the run configuration: {first_line(error)}"
        ) from error


def check_pipeline_parameters(pipeline: Pipeline, spec: RunSpec, mistakes: Mistakes) -> None:
    """Check the names and types of the parameters that a spec gives to the pipeline."""
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
        # A type that pydantic can't check, or a variable that isn't set: ZenML reports it.
        pass


def check_step_parameters(pipeline: Pipeline, spec: RunSpec, mistakes: Mistakes) -> None:
    """Check the steps that a spec names, and their parameters, against those of the graph."""
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
                        path = (*at, *where[1:])
                        mistakes.found.append(spec.error(path, f"'{path_name(path)}'{problem}"))
            except (KeyError, TypeError, ValueError):
                # A variable that isn't set, or what only ZenML can judge: it does so later.
                pass


def _unknown_parameter(owner: str, name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    """Describe a parameter that a pipeline or step does not have: the problem, and a hint."""
    hint = did_you_mean(name, known, f"It has: {', '.join(known) or 'none'}.")
    return f"{owner} has no parameter '{name}'.", hint
