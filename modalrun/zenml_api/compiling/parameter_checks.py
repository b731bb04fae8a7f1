"""Check a run spec's run configuration and parameters against the pipeline and its steps."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from datetime import date
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.steps.entrypoint_function_utils import EntrypointFunctionDefinition
from zenml.utils.pydantic_utils import validate_function_args

from modalrun.errors import UsageError
from modalrun.spec.messages import as_written, error_path, is_of_key, path_name
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.step_keys import for_steps
from modalrun.spec.validation import Mistakes, one_error, validation_messages
from modalrun.spec.yaml_nodes import KEY, KeyPath
from modalrun.util.nearest import did_you_mean, nearest
from modalrun.zenml_api.errors import first_line


def read_run_configuration(spec: RunSpec) -> PipelineRunConfiguration:
    """Parse the run configuration of a spec with ZenML's own model.

    Raises:
        UsageError: ZenML can't read it.
    """
    given = dict(spec.run_configuration)
    try:
        return PipelineRunConfiguration.model_validate(given)
    except ValidationError as error:
        found = [
            spec.error(where, f"'{path_name(where)}'{problem}")
            for where, problem in validation_messages(error, given)
        ]
        # The error has the values, which may be secrets.
        raise one_error(found) from None
    except (TypeError, ValueError) as error:
        # Some of ZenML's own validators raise something else than pydantic's errors.
        raise UsageError(
            f"{spec.source.path}: ZenML can't read the run configuration: {first_line(error)}"
        ) from error


def check_pipeline_parameters(pipeline: Pipeline, spec: RunSpec, mistakes: Mistakes) -> RunSpec:
    """Check the names and types of the parameters that a spec gives to the pipeline.

    Returns:
        The spec without what is wrong; a parameter that is declared as text has the text that is
        written.
    """
    known = inspect.signature(pipeline.entrypoint).parameters
    given = dict(spec.run_configuration.get("parameters") or {})
    if not given:
        return spec
    for name in [name for name in given if name not in known]:
        problem, hint = _unknown_parameter(f"the pipeline '{pipeline.name}'", name, known)
        mistakes.found.append(spec.error(("parameters", name), problem, hint))
        del given[name]

    def check(values: Mapping[str, Any]) -> None:
        others = pipeline.configuration.parameters or {}
        validate_function_args(pipeline.entrypoint, ConfigDict(), **{**others, **values})

    types = _hints(pipeline.entrypoint)
    fitting = _fit(given, check, lambda path: ("parameters", *path), spec, mistakes, types)
    for name, value in fitting.items():
        _note(("parameters", name), value, known[name].annotation, spec, mistakes)
    return replace(spec, run_configuration={**spec.run_configuration, "parameters": fitting})


def check_step_parameters(pipeline: Pipeline, spec: RunSpec, mistakes: Mistakes) -> RunSpec:
    """Check the steps that a spec names, and their parameters, against those of the graph.

    Returns:
        The spec, with a key for each step. A parameter that is declared as text has that text.
    """
    names = {one: invocation.step.name for one, invocation in pipeline.invocations.items()}
    with mistakes.collecting():
        spec = for_steps(spec, names, pipeline.name, dynamic=pipeline.is_dynamic)
    steps = dict(spec.run_configuration.get("steps") or {})
    for step in steps.keys() & pipeline.invocations.keys():
        definition = pipeline.invocations[step].step.entrypoint_definition
        given = dict(steps[step].get("parameters") or {})
        at = ("steps", step, "parameters")
        for name in [name for name in given if name not in definition.inputs]:
            problem, hint = _unknown_parameter(f"the step '{step}'", name, definition.inputs)
            mistakes.found.append(spec.error((*at, name), problem, hint))
            del given[name]
        for name, value in given.items():
            check = functools.partial(_check_input, definition, name)
            place = functools.partial(_below, (*at, name))
            annotation = definition.inputs[name].annotation
            types = {"value": annotation}
            given[name] = _fit({"value": value}, check, place, spec, mistakes, types).get("value")
            _note((*at, name), given[name], annotation, spec, mistakes)
            if given[name] != pipeline.invocations[step].parameters.get(name, given[name]):
                # ZenML refuses it too, with an example and without the line.
                problem = f"the pipeline's code passes another '{name}' to the step '{step}'."
                hint = "A parameter of the pipeline is set under 'parameters:'."
                mistakes.found.append(spec.error((*at, name), problem, hint))
        if given:
            steps[step] = {**steps[step], "parameters": given}
    if steps:
        spec = replace(spec, run_configuration={**spec.run_configuration, "steps": steps})
    return spec


def _check_input(definition: EntrypointFunctionDefinition, name: str, values: Any) -> None:
    try:
        definition.validate_input(name, values["value"])
    except RuntimeError as error:
        if isinstance(error.__cause__, ValidationError):
            raise error.__cause__ from None


def _below(at: KeyPath, path: KeyPath) -> KeyPath:
    return (*at, *path[1:])


def _fit(  # noqa: PLR0917
    given: dict[str, Any],
    check: Callable[[Mapping[str, Any]], None],
    place: Callable[[KeyPath], KeyPath],
    spec: RunSpec,
    mistakes: Mistakes,
    types: Mapping[str, Any],
) -> dict[str, Any]:
    """Check values against their types; return those that fit, some as the text that is written.

    Args:
        given: The values, by the names that errors have for them.
        check: Raises a ValidationError for values.
        place: Returns the path of a value in the spec.
        mistakes: Collects what is wrong even so.
        types: The types of the values, by their names.
    """
    error = _error(check, given)
    if error is None:
        return given
    texts: dict[KeyPath, str] = {}
    for one in error.errors(include_url=False):
        path = error_path(one, given)
        if is_of_key(one, path):
            path = (*path, KEY)
        scalar = spec.scalar(place(path))
        if path and scalar is not None and not isinstance(scalar.value, str):
            texts[path] = scalar.text
    fitting: dict[str, Any] = _with_texts(given, texts)
    error = _error(check, fitting)
    shown = functools.partial(_as_written, place, spec)
    wrong: set[str] = set()
    for where, problem in validation_messages(error, fitting, shown) if error else ():
        if where[:1] and where[0] in given:
            at = place(where)
            hint = _list_hint(at, problem, spec) or _field_hint(where, fitting, types)
            mistakes.found.append(spec.error(at, f"'{path_name(at)}'{problem}", hint))
            wrong.add(str(where[0]))
    return {name: value for name, value in fitting.items() if name not in wrong}


def _list_hint(at: KeyPath, problem: str, spec: RunSpec) -> str | None:
    """Return how a list is written where the value is none."""
    if not problem.startswith(" must be a list"):
        return None
    option, _, key = (spec.command_line.flag(at) or "").partition(" ")
    return f"As in {option} '{key}=[a, b]'." if key else f"As in '{at[-1]}: [a, b]'."


def _field_hint(where: KeyPath, values: Any, types: Mapping[str, Any]) -> str | None:
    """Return the field of a model, dataclass or TypedDict that is misspelt; None if none is."""
    *above, name = where
    owner = values
    for part in above:
        owner = owner.get(part) if isinstance(owner, dict) else owner[int(part)]
    if not (above and isinstance(owner, dict)):
        return None
    fields, name = _fields(types.get(str(above[0])), above[1:]), str(name)
    if name not in fields:
        close = nearest(name, fields.keys() - owner.keys())
        return close and f"Did you mean '{close}'?"
    if name in owner:
        return None
    close = nearest(name, map(str, owner.keys() - fields.keys()))
    return close and f"Did you mean '{name}' by '{close}'?"


def _fields(kind: Any, path: Sequence[int | str]) -> dict[str, Any]:
    """Return the fields, with their types, of what stands at a path inside a value of a type."""
    fields = {name: inner for one in _parts(kind) for name, inner in _own_fields(one).items()}
    for number, part in enumerate(path, start=1):
        # Another part is the index of a list, or the key of a dictionary.
        if part in fields:
            return _fields(fields[str(part)], path[number:])
    return fields


def _parts(kind: Any) -> Iterator[Any]:
    """Yield a type and those inside it: of a union's branches, and of what a list holds."""
    yield kind
    for inner in get_args(kind):
        yield from _parts(inner)


def _own_fields(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {one.alias or name: one.annotation for name, one in kind.model_fields.items()}
    # A TypedDict may be that of `typing_extensions`, which `typing` does not know.
    return _hints(kind) if is_dataclass(kind) or hasattr(kind, "__total__") else {}


def _hints(owner: Any) -> dict[str, Any]:
    # A name may be imported for type checkers only.
    with contextlib.suppress(Exception):
        return get_type_hints(owner, include_extras=True)
    return {}


def _error(check: Callable[[Mapping[str, Any]], None], values: Any) -> ValidationError | None:
    try:
        check(values)
    except ValidationError as error:
        return error
    except (KeyError, TypeError, ValueError):
        # A type that pydantic can't check: ZenML reports it.
        pass
    return None


def _as_written(place: Callable[[KeyPath], KeyPath], spec: RunSpec, path: KeyPath) -> str | None:
    return as_written(spec.scalar(place(path)))


def _note(at: KeyPath, value: Any, annotation: Any, spec: RunSpec, mistakes: Mistakes) -> None:
    """Note a parameter that YAML reads as something else than people do."""
    scalar = spec.scalar(at)
    if scalar is None or not scalar.is_surprising or value != scalar.value:
        return
    declared = getattr(annotation, "__name__", "") + str(annotation)
    if not isinstance(value, bool | date) or type(value).__name__ not in declared:
        place = spec.where(at)
        mistakes.notes.append(f"{place}: '{path_name(at)}' is {as_written(scalar)}")


def _with_texts(value: Any, texts: Mapping[KeyPath, str], at: KeyPath = ()) -> Any:
    """Return a copy of nested values that has these texts for the values and keys at their paths.

    It shares nothing, as YAML's aliases do.
    """
    if at in texts:
        return texts[at]
    if isinstance(value, dict):
        copy = {}
        for key, inner in value.items():
            here = (*at, str(key))
            text = texts.get((*here, KEY), key)
            # 007 beside "007" stays a number, which is an error.
            copy[key if text in value else text] = _with_texts(inner, texts, here)
        return copy
    if isinstance(value, list):
        return [_with_texts(inner, texts, (*at, number)) for number, inner in enumerate(value)]
    return value


def _unknown_parameter(owner: str, name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    """Describe a parameter that a pipeline or step does not have: the problem, and a hint."""
    hint = did_you_mean(name, known, f"It has: {', '.join(known) or 'none'}.")
    return f"{owner} has no parameter '{name}'.", hint
