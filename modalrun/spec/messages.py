"""What is wrong with a value, in YAML's words: not in pydantic's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from modalrun.spec.yaml_source import KeyPath

_MAPPING = "a mapping (key: value)"
_KINDS = {
    "string": "a text",
    "bytes": "a text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "dict": _MAPPING,
    "mapping": _MAPPING,
    "model": _MAPPING,
    "dataclass": _MAPPING,
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen": "a list",
    "iterable": "a list",
    "uuid": "an id (a UUID)",
    "date": "a date",
    "datetime": "a date and time",
}
"""The first word of pydantic's error types -> what it wants."""

_ABOUT_KIND = ("_type", "_parsing", "_from_float", "_number", "_attributes_type", "_set_type")

_BOUNDS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "{} or less"),
    "string_pattern_mismatch": ("pattern", "a text that matches {}"),
    "literal_error": ("expected", "{}"),
    "enum": ("expected", "{}"),
}

_LABELS = frozenset({"str", "int", "float", "bool", "uuid", "dict", "list", "none"})
"""What pydantic calls the branches of a union, in the location of an error."""

_HOLD_SECRETS = frozenset({"environment", "runtime_environment", "secrets"})
_SECRETS = frozenset({"token_id", "token_secret"})
"""What is below the first, and the second themselves, is never repeated in a message."""

_LONGEST = 60


def path_name(path: KeyPath) -> str:
    """A key's path as a person writes it: `settings.orchestrator.gpu[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def by_key(errors: Sequence[ErrorDetails], root: Any = None) -> list[list[ErrorDetails]]:
    """Errors of pydantic's, put together for each key; a list counts as one, with its items.

    Args:
        errors: Everything that is wrong with a value.
        root: The whole value, as for `described`.
    """
    keys = [_to_list(_place(error, root)) for error in errors]
    groups: dict[KeyPath, list[ErrorDetails]] = {}
    for key, error in zip(keys, errors, strict=True):
        # Of a union, one branch complains about the value, another about a key in it.
        deeper = [k for k in keys if key and len(k) > len(key) and k[: len(key)] == key]
        groups.setdefault(deeper[0] if deeper else key, []).append(error)
    return list(groups.values())


def _to_list(place: KeyPath) -> KeyPath:
    numbers = [i for i, part in enumerate(place) if isinstance(part, int)]
    return place[: numbers[0]] if numbers else place


def described(errors: Sequence[ErrorDetails], root: Any = None) -> tuple[KeyPath, str]:
    """What is wrong with one field.

    Args:
        errors: All that pydantic says of it; of a union, that of every branch.
        root: The whole value that was checked, where there is one: it tells a key from the name
            that pydantic gives to a union's branch.

    Returns:
        The path of the wrong key, and what comes behind its name in a message: " has to be a
        number, not 'many'.".
    """
    places = [_place(error, root) for error in errors]
    # A union's branches are all reported; the one that goes into the value knows more.
    where = max(places, key=len)
    of_place = [error for error, place in zip(errors, places, strict=True) if place == where]
    # The branch that takes the value's kind, and finds it too small or short, knows more as well.
    of_place = [e for e in of_place if not e["type"].endswith(_ABOUT_KIND)] or of_place
    first = of_place[0]
    if first["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return where, " is missing."
    expected = [_expected(error) for error in of_place]
    if None in expected:
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        return where, f": {message[:1].lower()}{message[1:]}."
    choice = " or ".join(dict.fromkeys(map(str, expected)))
    given = "" if _is_secret(where) else f", not {given_value(first.get('input'))}"
    return where, f" has to be {choice}{given}."


def given_value(value: Any) -> str:
    """A value as YAML has it; of what holds others, only its kind, for a secret may be in it."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value) if isinstance(value, str | int | float) else f"'{value}'"
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 4]}...'"


def _is_secret(where: KeyPath) -> bool:
    return bool(_HOLD_SECRETS & {str(part) for part in where[:-1]} or _SECRETS & set(where[-1:]))


def _place(error: ErrorDetails, root: Any) -> KeyPath:
    """The location of an error without the names of a union's branches (`list[str]`, `Tag`)."""
    where: list[int | str] = []
    here = root
    for number, part in enumerate(error["loc"]):
        if isinstance(part, int):
            known = True
        elif not part.replace("_", "").isalnum():
            # A key may have dots and dashes; `list[str]` and `function-before[...]` are branches.
            known = isinstance(here, Mapping) and part in here
        elif isinstance(here, Mapping):
            known = part in here or error["type"] in {"missing", "extra_forbidden"}
        else:
            known = number == 0 or (root is None and part not in _LABELS)
        if known:
            where.append(part)
            here = _inside(here, part)
    return tuple(where)


def _inside(value: Any, part: int | str) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None


def _expected(error: ErrorDetails) -> str | None:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        return words.format(f"{bound:g}" if isinstance(bound, float) else bound)
    if kind == "string_too_short":
        least = context["min_length"]
        return "a text that is not empty" if least == 1 else f"a text of {least} characters or more"
    if kind.endswith(_ABOUT_KIND):
        return _KINDS.get(kind.partition("_")[0])
    return None
