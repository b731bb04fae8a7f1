"""Describe pydantic's errors in the terms of YAML. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from pydantic_core import ErrorDetails

from modalrun.spec.yaml_nodes import KEY, KeyPath, Scalar
from modalrun.util.timeparse import DURATION_FORMS, written

_KINDS = {
    "string": "a string",
    "bytes": "a string",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    **dict.fromkeys(("dict", "mapping", "model", "dataclass"), "a mapping (key: value)"),
    **dict.fromkeys(("list", "tuple", "set", "frozen", "iterable"), "a list"),
    "uuid": "an id (a UUID)",
    "date": "a date",
    "datetime": "a date and time",
    "duration": DURATION_FORMS,
}
"""The first word of pydantic's error types -> the expected value."""

_KIND_ERRORS = ("_type", "_parsing", "_from_float", "_number", "_attributes_type", "_set_type")
"""The ends of pydantic's error types for a value of the wrong kind."""

_BOUNDS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "{} or less"),
    "string_pattern_mismatch": ("pattern", "a string that matches {}"),
    "literal_error": ("expected", "{}"),
    "enum": ("expected", "{}"),
}

_LABELS = frozenset({"str", "int", "float", "bool", "uuid", "dict", "list", "none"})
"""Pydantic's names for the branches of a union, in the location of an error."""

_ENVIRONMENTS = frozenset({"environment", "runtime_environment", "build_args", "buildargs"})
_HOLD_SECRETS = _ENVIRONMENTS | {"secrets", "python_package_installer_args"}
SECRETS = _ENVIRONMENTS | {"token_id", "token_secret"}
"""Values below the second keys, and of the third, never appear in a message, nor in a report."""

_LONGEST = 60


def path_name(path: KeyPath) -> str:
    """Format the path of a key: `settings.orchestrator.gpu[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def group_by_key(errors: Sequence[ErrorDetails], root: Any = None) -> list[list[ErrorDetails]]:
    """Group all errors of the value `root` by key; the items of a list belong to the list's key."""
    keys = [_without_items(error_path(error, root)) for error in errors]
    groups: dict[KeyPath, list[ErrorDetails]] = {}
    for key, error in zip(keys, errors, strict=True):
        # One branch of a union reports the value, another a key in it.
        deeper = [k for k in keys if key and len(k) > len(key) and k[: len(key)] == key]
        groups.setdefault(deeper[0] if deeper else key, []).append(error)
    return list(groups.values())


def _without_items(path: KeyPath) -> KeyPath:
    return next((path[:i] for i, part in enumerate(path) if isinstance(part, int)), path)


Shown = Callable[[KeyPath], str | None]
"""Returns a value as it is shown instead of what it is, by its path; None for as it is."""


def as_written(scalar: Scalar | None) -> str | None:
    """Return how a value that a user has written is shown; None for as it is."""
    if scalar is None:
        return None
    if scalar.written is not None:
        if scalar.shown != scalar.text:
            return format_value(scalar.shown)
        # Of its variables, only defaults count, which are in the file.
        return f"{format_value(scalar.value)} (from {format_value(scalar.written)})"
    if not scalar.is_surprising:
        return None
    kind = "a date" if isinstance(scalar.value, date) else format_value(scalar.value)
    return f"{scalar.text}, which YAML reads as {kind} (put quotes around text)"


def describe(
    errors: Sequence[ErrorDetails], root: Any = None, shown: Shown | None = None
) -> tuple[KeyPath, str]:
    """Return the path of a wrong key, and the text after it: " must be a number, not 'many'.".

    Args:
        errors: Pydantic's errors of one field; of a union, those of every branch.
        root: The whole value, if known: it distinguishes a key from the name of a union's branch.
        shown: How values are shown.
    """
    paths = [error_path(error, root) for error in errors]
    # Of a union's branches, the one that looks into the value knows most,
    where = max(paths, key=len)
    at_path = [error for error, path in zip(errors, paths, strict=True) if path == where]
    # and then one that accepts the kind of value, but not the value.
    at_path = [e for e in at_path if not e["type"].endswith(_KIND_ERRORS)] or at_path
    of_key = [error for error in at_path if is_of_key(error, where)]
    at_path = of_key or at_path
    first = at_path[0]
    if first["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return where, " is missing."
    expected = [_expected(error) for error in at_path]
    if None in expected:
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        end = "" if message.endswith("?") else "."
        return where, f": {message[:1].lower()}{message[1:]}{end}"
    choice = " or ".join(dict.fromkeys(map(str, expected)))
    if of_key:
        quotes = "" if isinstance(first["input"], str) else " (put quotes around text)"
        return where, f": the key must be {choice}, not {format_value(first['input'])}{quotes}."
    value = (shown and shown(where)) or format_value(first.get("input"))
    given = "" if is_secret(where) else f", not {value}"
    return where, f" must be {choice}{given}."


def format_value(value: Any) -> str:
    """Format a value for a message; of a collection only its kind, as it may hold a secret."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value) if isinstance(value, str | int | float) else f"'{value}'"
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 4]}...'"


def is_secret(where: KeyPath) -> bool:
    """Return whether the value of a key may be a secret, which no message shows."""
    return bool(_HOLD_SECRETS & {str(part) for part in where[:-1]} or SECRETS & set(where[-1:]))


def error_path(error: ErrorDetails, root: Any) -> KeyPath:
    """Return an error's location without the names of a union's branches (`list[str]`, `Tag`).

    The keys of mappings are text in it, numbers too, as in the paths of a `YamlSource`.
    """
    where: list[int | str] = []
    here = root
    for number, part in enumerate(error["loc"]):
        key = _own_key(here, part) if isinstance(here, Mapping) else part
        if isinstance(part, int):
            known = True
        elif not part.replace("_", "").isalnum():
            # A key may have dots and dashes; `list[str]` and `function-before[...]` are branches.
            known = isinstance(here, Mapping) and key in here
        elif isinstance(here, Mapping):
            known = key in here or error["type"] in {"missing", "extra_forbidden"}
        else:
            known = number == 0 or (root is None and part not in _LABELS)
        if known:
            where.append(str(part) if isinstance(here, Mapping) else part)
            here = _inside(here, key)
    return tuple(where)


def is_of_key(error: ErrorDetails, where: KeyPath) -> bool:
    """Return whether an error with this path is one of the key itself."""
    return error["loc"][-1:] == (KEY,) != where[-1:]


def _own_key(mapping: Mapping[Any, Any], part: int | str) -> int | str | float:
    """Return the key that a part of a location means: pydantic has 1.5 as text."""
    if part not in mapping:
        with contextlib.suppress(ValueError):
            return float(part)
    return part


def _inside(value: Any, part: int | str | float) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None


def _expected(error: ErrorDetails) -> str | None:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        given = error["input"]
        if isinstance(bound, int) and isinstance(given, str) and not given.isdigit():
            # Of numbers, only a duration may be given as a text.
            return words.format(written(bound))
        return words.format(f"{bound:g}" if isinstance(bound, float) else bound)
    if kind == "string_too_short":
        least = context["min_length"]
        size = "that is not empty" if least == 1 else f"of {least} characters or more"
        return f"a string {size}"
    if kind.endswith(_KIND_ERRORS):
        return _KINDS.get(kind.partition("_")[0])
    return None
