"""Check a run spec's keys and values; every mistake names its line. Pure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from modalrun.errors import UsageError
from modalrun.spec.messages import by_key, described, given_value, path_name
from modalrun.spec.schema import (
    ZENML_VERSION,
    DockerKeys,
    ModelKeys,
    RetryKeys,
    RunKeys,
    StepKeys,
)
from modalrun.spec.yaml_source import KeyPath, YamlSource
from modalrun.util.nearest import misspelling_of, nearest


class Mistakes:
    """Collect the mistakes in a spec, so that all of them are reported at once.

    Attributes:
        found: One error per mistake, in the order in which they were found.
        notes: What is no mistake, but worth showing with the plan.
    """

    def __init__(self) -> None:
        self.found: list[UsageError] = []
        self.notes: list[str] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect a UsageError of the block, and go on behind it."""
        try:
            yield
        except UsageError as error:
            self.found.append(error)

    def raise_all(self) -> None:
        """Raise one UsageError for all mistakes; do nothing without any."""
        if self.found:
            raise together(self.found)


def together(errors: Sequence[UsageError]) -> UsageError:
    """Join errors into one, in the order of the file: a line each, with its hint."""
    if len(errors) == 1:
        return errors[0]
    numbers: dict[str, int] = {}
    for error in errors:
        number = 0
        text = f"{error.message} {error.hint}" if error.hint else error.message
        for line in text.split("\n"):
            # A line that names no place belongs to the one before it.
            found = re.match(r".*?:(\d+): ", line)
            number = int(found[1]) if found else number
            numbers.setdefault(line, number)
    return UsageError("\n".join(sorted(numbers, key=numbers.__getitem__)))


def validation_message(error: ValidationError, root: Any = None) -> tuple[KeyPath, str]:
    """Describe the first problem of a pydantic error: the path of the key, and the text after it.

    Args:
        error: The error.
        root: The whole value that was validated, if it is known.
    """
    return validation_messages(error, root)[0]


def validation_messages(error: ValidationError, root: Any = None) -> list[tuple[KeyPath, str]]:
    """Describe the problems of a pydantic error, one for each key and each list."""
    return [described(errors, root) for errors in by_key(error.errors(include_url=False), root)]


def check(source: YamlSource, at: KeyPath, model: type[BaseModel], value: Any) -> None:
    """Check a value against a pydantic model.

    Raises:
        UsageError: It doesn't fit; the message names the line of each wrong field.
    """
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = []
        for errors in by_key(error.errors(include_url=False), value):
            where, problem = described(errors, value)
            full = (*at, *where)
            if errors[0]["type"] == "extra_forbidden":
                found.append(unknown_key(source, full, _fields_at(model, where[:-1])))
            else:
                name = path_name(full) or "run spec"
                found.append(UsageError(f"{source.where(full)}: '{name}'{problem}"))
        raise together(found) from None


def _fields_at(model: type[BaseModel], path: KeyPath) -> Iterable[str]:
    """Return the fields of the model at a path inside another one."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = list(get_args(field.annotation) or (field.annotation,)) if field else []
        models = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
        if models:
            model = models[0]
    return model.model_fields


def unknown_key(source: YamlSource, at: KeyPath, known: Iterable[str]) -> UsageError:
    """Make the error for a key that doesn't exist, with the nearest one that does."""
    key, parent = str(at[-1]), ".".join(str(p) for p in at[:-1])
    close = nearest(key, known)
    inside = f" under '{parent}'" if parent else ""
    return UsageError(
        f"{source.where(at)}: unknown key '{key}'{inside}.",
        hint=f"Did you mean '{close}'?" if close else f"Valid keys: {', '.join(sorted(known))}.",
    )


def refuse_unknown(
    source: YamlSource, at: KeyPath, data: Iterable[Any], known: Iterable[str], mistakes: Mistakes
) -> None:
    """Collect an error for each key that is not a known one."""
    known = set(known)
    mistakes.found += [unknown_key(source, (*at, str(k)), known) for k in data if k not in known]


def check_zenml_names(
    source: YamlSource, at: KeyPath, data: Iterable[Any], known: Iterable[str], mistakes: Mistakes
) -> None:
    """Check that ZenML has the keys.

    ZenML drops an unknown key silently, so it is an error. A ZenML newer than the list may have
    more keys: then only a misspelt key is an error, and another one gets a note.
    """
    known = set(known)
    unknown = [key for key in data if key not in known]
    newer = _newer_zenml() if unknown else None
    for key in map(str, unknown):
        path = (*at, key)
        # The kind of a settings key "kind.flavor" or "kind:name" is what can be misspelt.
        if newer is None or misspelling_of(re.split("[.:]", key)[0], known):
            mistakes.found.append(unknown_key(source, path, known))
        else:
            mistakes.notes.append(
                f"{source.where(path)}: ZenML {ZENML_VERSION} has no key '{path_name(path)}';"
                f" ZenML {newer} gets it unchecked"
            )


def _newer_zenml() -> str | None:
    """Return the installed ZenML's version if it is newer than the lists of keys."""
    from importlib import metadata

    from packaging.version import Version

    try:
        version = metadata.version("zenml")
    except metadata.PackageNotFoundError:
        return None
    return version if Version(version) > Version(ZENML_VERSION) else None


def check_zenml_values(
    source: YamlSource, configuration: Mapping[str, Any], mistakes: Mistakes
) -> None:
    """Check the values of ZenML's keys, of the pipeline and its steps.

    Args:
        source: The run spec's file, or the command line.
        configuration: Its part for ZenML, without the settings of sandboxes.
        mistakes: Collects the mistakes.
    """
    _check_owner(source, (), RunKeys, configuration, mistakes)
    for name, step in (configuration.get("steps") or {}).items():
        _check_owner(source, ("steps", name), StepKeys, step, mistakes)


def _check_owner(
    source: YamlSource,
    at: KeyPath,
    model: type[BaseModel],
    owner: Mapping[str, Any],
    mistakes: Mistakes,
) -> None:
    with mistakes.collecting():
        check(source, at, model, owner)
    docker = (owner.get("settings") or {}).get("docker")
    for path, value, keys in (
        (("retry",), owner.get("retry"), RetryKeys),
        (("model",), owner.get("model"), ModelKeys),
        (("settings", "docker"), docker, DockerKeys),
    ):
        if isinstance(value, Mapping):
            check_zenml_names(source, (*at, *path), value, keys.model_fields, mistakes)
    if docker is not None:
        with mistakes.collecting():
            check(source, (*at, "settings", "docker"), DockerKeys, docker)


def mapping(source: YamlSource, at: KeyPath, value: Any) -> dict[str, Any]:
    """Return a value that must be a mapping.

    Raises:
        UsageError: It is not.
    """
    if isinstance(value, dict):
        return value
    raise UsageError(
        f"{source.where(at)}: '{path_name(at)}' must be a mapping (key: value), not"
        f" {given_value(value)}."
    )
