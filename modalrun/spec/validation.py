"""Checks of a run spec's keys and values; every mistake becomes one message with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modalrun.errors import UsageError
from modalrun.spec.messages import by_key, described, given_value, path_name
from modalrun.spec.mistakes import together
from modalrun.spec.yaml_source import KeyPath, YamlSource
from modalrun.util.nearest import nearest


def validation_message(error: ValidationError, root: Any = None) -> tuple[KeyPath, str]:
    """The first problem of a pydantic error: the path of its key, and what comes behind its name.

    Args:
        error: What pydantic raised.
        root: The whole value that it was raised for, where that is known.
    """
    return validation_messages(error, root)[0]


def validation_messages(error: ValidationError, root: Any = None) -> list[tuple[KeyPath, str]]:
    """The problems of a pydantic error: of each key, and of each list, the first one."""
    return [described(errors, root) for errors in by_key(error.errors(include_url=False), root)]


def check(source: YamlSource, at: KeyPath, model: type[BaseModel], value: Any) -> Any:
    """A value as a pydantic model.

    Raises:
        UsageError: It doesn't fit; the message names the place of each field that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        grouped = by_key(error.errors(include_url=False), value)
        found = [_mistake(source, at, model, errors, value) for errors in grouped]
        raise together(found) from None


def _mistake(
    source: YamlSource, at: KeyPath, model: type[BaseModel], errors: list[ErrorDetails], root: Any
) -> UsageError:
    where, problem = described(errors, root)
    full = (*at, *where)
    if errors[0]["type"] == "extra_forbidden":
        return unknown_key(source, full, _fields_at(model, where[:-1]))
    return UsageError(f"{source.where(full)}: '{path_name(full) or 'run spec'}'{problem}")


def _fields_at(model: type[BaseModel], path: KeyPath) -> Iterable[str]:
    """The fields of the model that stands at a place inside another one."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = list(get_args(field.annotation) or (field.annotation,)) if field else []
        models = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
        if models:
            model = models[0]
    return model.model_fields


def unknown_key(source: YamlSource, at: KeyPath, known: Iterable[str]) -> UsageError:
    """The error for a key that doesn't exist, with the nearest one that does."""
    key, parent = str(at[-1]), ".".join(str(p) for p in at[:-1])
    close = nearest(key, known)
    inside = f" under '{parent}'" if parent else ""
    return UsageError(
        f"{source.where(at)}: unknown key '{key}'{inside}.",
        hint=f"Did you mean '{close}'?" if close else f"Valid keys: {', '.join(sorted(known))}.",
    )


def refuse_unknown(
    source: YamlSource, at: KeyPath, data: Mapping[Any, Any], known: Iterable[str]
) -> None:
    """Raise a UsageError for the keys that are not among the known ones."""
    known = set(known)
    wrong = [unknown_key(source, (*at, str(key)), known) for key in data if key not in known]
    if wrong:
        raise together(wrong)


def mapping(source: YamlSource, at: KeyPath, value: Any) -> dict[str, Any]:
    """A value that has to be a mapping.

    Raises:
        UsageError: It is not.
    """
    if isinstance(value, dict):
        return value
    raise UsageError(
        f"{source.where(at)}: '{path_name(at)}' has to be a mapping (key: value), not"
        f" {given_value(value)}."
    )
