"""Checks of a run spec's keys and values; every mistake becomes one message with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modalrun.errors import UsageError
from modalrun.mistakes import together
from modalrun.yaml_source import KeyPath, YamlSource, nearest

_HOLD_SECRETS = frozenset({"environment", "secrets"})
_SECRETS = frozenset({"token_id", "token_secret"})
"""What is below the first, and the second themselves, is never repeated in a message."""


def validation_message(error: ValidationError) -> tuple[KeyPath, str]:
    """The first problem of a pydantic error, as the path of its key and one sentence."""
    return _message(error.errors(include_url=False))


def validation_messages(error: ValidationError) -> list[tuple[KeyPath, str]]:
    """The problems of a pydantic error: of each field the first one, as `validation_message`."""
    return [_message(errors) for errors in _by_field(error)]


def _by_field(error: ValidationError) -> list[list[ErrorDetails]]:
    fields: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for one in error.errors(include_url=False):
        fields.setdefault(one["loc"][:1], []).append(one)
    return list(fields.values())


def _message(errors: list[ErrorDetails]) -> tuple[KeyPath, str]:
    first = errors[0]
    if isinstance(first.get("input"), list):
        # A union's branches are all reported; the one that goes into the list names the item.
        of_field = [e for e in errors if e["loc"][:1] == first["loc"][:1]]
        inside = [e for e in of_field if any(isinstance(part, int) for part in e["loc"])]
        first = inside[0] if inside else first
    # Pydantic adds the tried branches of a union (`list[str]`, `function-...`) to the location.
    where = tuple(p for p in first["loc"] if isinstance(p, int) or p.replace("_", "").isalnum())
    value = first.get("input")
    shown = f" (it is {value!r})" if isinstance(value, str | int | float | bool) else ""
    if isinstance(value, dict | list):
        shown = f" (it is a {'mapping' if isinstance(value, dict) else 'list'})"
    if _HOLD_SECRETS & {str(part) for part in where[:-1]} or _SECRETS & set(where[-1:]):
        shown = ""
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "value_error":
        # Our own validators say what the value is.
        shown = ""
    return where, f"{message[:1].lower()}{message[1:]}{shown}."


def check(source: YamlSource, at: KeyPath, model: type[BaseModel], value: Any) -> Any:
    """A value as a pydantic model.

    Raises:
        UsageError: It doesn't fit; the message names the place of each field that is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [_mistake(source, at, model, errors) for errors in _by_field(error)]
        raise together(found) from None


def _mistake(
    source: YamlSource, at: KeyPath, model: type[BaseModel], errors: list[ErrorDetails]
) -> UsageError:
    where, problem = _message(errors)
    full = (*at, *where)
    if errors[0]["type"] == "extra_forbidden":
        return unknown_key(source, full, _fields_at(model, where[:-1]))
    name = ".".join(str(p) for p in full if not isinstance(p, int)) or "run spec"
    return UsageError(f"{source.where(full)}: '{name}': {problem}")


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
    name = ".".join(str(p) for p in at)
    raise UsageError(
        f"{source.where(at)}: '{name}' has to be a mapping (key: value), not"
        f" {'a list' if isinstance(value, list) else repr(value)}."
    )
