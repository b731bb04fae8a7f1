"""Check a run spec's keys and values; every mistake names its line. Pure."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from modalrun.errors import UsageError
from modalrun.spec import places
from modalrun.spec.messages import (
    Shown,
    as_written,
    describe,
    format_value,
    group_by_key,
    is_secret,
    path_name,
)
from modalrun.spec.overrides import CommandLineSource
from modalrun.spec.schema import ZENML_VERSION, DockerKeys, ModelKeys, RetryKeys, RunKeys, StepKeys
from modalrun.spec.yaml_nodes import KEY, KeyPath
from modalrun.spec.yaml_source import YamlSource
from modalrun.util.nearest import misspelling_of

M = TypeVar("M", bound=BaseModel)

_UNTYPED = frozenset({"parameters", "environment", "extra"})
"""Keys below which the user's own code says what a value is."""


class Mistakes:
    """Collect the mistakes in a spec, to report them at once, and notes to show with the plan.

    Attributes:
        unknown: The paths of unknown keys, which are among the mistakes.
    """

    def __init__(self) -> None:
        self.found: list[UsageError] = []
        self.notes: list[str] = []
        self.listed: set[str] = set()
        self.unknown: set[KeyPath] = set()

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
            raise one_error(self.found)


def one_error(errors: Sequence[UsageError]) -> UsageError:
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

    `root` is the whole value that was validated, if it is known.
    """
    return validation_messages(error, root)[0]


def validation_messages(
    error: ValidationError, root: Any = None, shown: Shown | None = None
) -> list[tuple[KeyPath, str]]:
    """Describe the problems of a pydantic error, one for each key and each list."""
    return [
        describe(errors, root, shown)
        for errors in group_by_key(error.errors(include_url=False), root)
    ]


def with_hints(error: ValidationError, model: type[BaseModel]) -> ValidationError:
    """Return the error of a settings class, with what to write instead of each unknown key."""
    listed: set[str] = set()
    details: list[InitErrorDetails] = []
    for one in error.errors(include_url=False):
        where, text = one["loc"], one["msg"]
        if one["type"] == "extra_forbidden":
            known = _fields_at(model, where[:-1])
            hint = places.hint((*places.ORCHESTRATOR, *where), known, listed)
            text = f"Unknown setting '{where[-1]}'.{f' {hint}' if hint else ''}"
        kind = PydanticCustomError(one["type"], text, one.get("ctx"))
        details.append({"type": kind, "loc": where, "input": one["input"]})
    return ValidationError.from_exception_data(error.title, details)


@dataclass(frozen=True)
class Checker:
    """Check what one source, the run spec's file or the command line, sets."""

    source: YamlSource
    mistakes: Mistakes

    def error(self, at: KeyPath, problem: str, hint: str | None = None) -> None:
        """Collect a mistake at a key, unless its value has a variable that is not set."""
        written = self.source.written(at)
        if not any(written[:end] in self.source.unset for end in range(len(written) + 1)):
            self._add(at, problem, hint)

    def _add(self, at: KeyPath, problem: str, hint: str | None = None) -> None:
        self.mistakes.found.append(UsageError(f"{self.source.where(at)}: {problem}", hint=hint))

    def values(self, at: KeyPath, model: type[M], value: Any) -> M | None:
        """Check a value against a pydantic model; return it as such, or None if it does not fit."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for errors in group_by_key(error.errors(include_url=False), value):
                where, problem = describe(errors, value, lambda path: self._as_written(at, path))
                if errors[0]["type"] == "extra_forbidden":
                    self._unknown((*at, *where), _fields_at(model, where[:-1]))
                else:
                    self.error((*at, *where), f"'{self.name((*at, *where))}'{problem}")
            return None

    def variables(self) -> None:
        """Report variables that are not set."""
        for at, problem in self.source.unset.items():
            self._add(at, f"'{path_name(at)}': {problem}")

    def note_numbers(self) -> None:
        """Note the numbers that people read as other ones: 010 is 8, and 2:00 is 120."""
        for at, scalar in self.source.scalars.items():
            is_number = isinstance(scalar.value, int | float) and not isinstance(scalar.value, bool)
            others = any(part in _UNTYPED | {KEY} or str(part).startswith("x-") for part in at)
            if scalar.is_surprising and is_number and scalar.written is None and not others:
                place = self.source.where(at)
                self.mistakes.notes.append(f"{place}: '{path_name(at)}' is {as_written(scalar)}")

    def name(self, path: KeyPath) -> str:
        """Return the path of a key as it is written."""
        return path_name(self.source.written(path))

    def names(self, at: KeyPath, keys: Iterable[Any], known: Collection[str]) -> None:
        """Check that modalrun has the keys."""
        for key in keys:
            if key not in known:
                self._unknown((*at, str(key)), known)

    def zenml_names(self, at: KeyPath, keys: Iterable[Any], known: Iterable[str]) -> None:
        """Check that ZenML has the keys.

        ZenML drops an unknown key silently, so it is an error. A ZenML newer than the list may
        have more keys: then only a misspelt key is an error, and another one gets a note.
        """
        known = set(known)
        unknown = [str(key) for key in keys if key not in known]
        newer = _newer_zenml() if unknown else None
        for key in unknown:
            path = (*at, key)
            # The kind of a settings key "kind.flavor" or "kind:name" is what can be misspelt.
            if newer is None or misspelling_of(re.split("[.:]", key)[0], known):
                self._unknown(path, known)
            else:
                self.mistakes.notes.append(
                    f"{self.source.where(path)}: ZenML {ZENML_VERSION} has no key"
                    f" '{path_name(path)}'; it is passed to ZenML {newer} unchecked"
                )

    def mapping(self, at: KeyPath, value: Any) -> dict[str, Any]:
        """Return a copy of a value that must be a mapping; an empty one for None or a mistake."""
        if isinstance(value, dict):
            return {str(key): inner for key, inner in value.items()}
        if value is not None:
            given = "" if is_secret(at) else f", not {format_value(value)}"
            problem = f"must be a mapping (key: value){given}."
            self.error(at, f"'{self.name(at)}' {problem}")
        return {}

    def zenml_values(self, configuration: dict[str, Any]) -> None:
        """Check the values of ZenML's keys, of the pipeline and its steps.

        What people write in a form of their own gets ZenML's: durations, `{{date}}` for `{date}`.
        """
        self._owner((), RunKeys, configuration)
        for name, step in (configuration.get("steps") or {}).items():
            self._owner(("steps", name), StepKeys, step)
        if isinstance(run_name := configuration.get("run_name"), str):
            # To `str.format`, which ZenML calls, two braces are one of the name itself.
            configuration["run_name"] = run_name = re.sub(r"\{(\{\w+\})\}", r"\1", run_name)
            if problem := run_name_problem(run_name):
                self.error(("run_name",), *problem)

    def _owner(self, at: KeyPath, model: type[BaseModel], owner: dict[str, Any]) -> None:
        checked = self.values(at, model, owner)
        # Of a text such as "false" ZenML makes the same; `bool` would not.
        owner.update({k: v for k in owner if isinstance(v := getattr(checked, k, None), bool)})
        if (retry := getattr(checked, "retry", None)) and "delay" in retry.model_fields_set:
            owner["retry"] = {**owner["retry"], "delay": retry.delay}
        docker = (owner.get("settings") or {}).get("docker")
        for path, value, keys in (
            (("retry",), owner.get("retry"), RetryKeys),
            (("model",), owner.get("model"), ModelKeys),
            (("settings", "docker"), docker, DockerKeys),
        ):
            if isinstance(value, Mapping):
                self.zenml_names((*at, *path), value, keys.model_fields)
        if docker is not None:
            self.values((*at, "settings", "docker"), DockerKeys, docker)

    def _as_written(self, at: KeyPath, path: KeyPath) -> str | None:
        return as_written(self.source.scalar((*at, *path)))

    def _unknown(self, at: KeyPath, known: Iterable[str]) -> None:
        parent = self.name(at[:-1]) if len(at) > 1 else ""
        inside = f" under '{parent}'" if parent else ""
        problem = f"unknown key '{at[-1]}'{inside}."
        self.mistakes.unknown.add(at)
        flag = isinstance(self.source, CommandLineSource)
        self.error(at, problem, places.hint(at, known, self.mistakes.listed, flag=flag))


def run_name_problem(
    template: str, substitutions: Collection[str] | None = None
) -> tuple[str, str] | None:
    """Return what is wrong with a run name that ZenML formats, and a hint; None if it can.

    Args:
        substitutions: The names of the pipeline's own placeholders; None for not known yet.
    """
    hint = "Braces hold the name of a placeholder, and nothing else: {date} or {time}."
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        return f"'run_name': {error} in {template!r}.", hint
    if not parts:
        return "'run_name' is empty.", "Leave it out for the pipeline's name with date and time."
    known = {"date", "time", *(substitutions or ())}
    for _, name, specifier, conversion in parts:
        if name is None:
            continue
        if specifier or conversion or not re.fullmatch(r"(?![0-9]+$)[^.\[]+", name):
            return f"'run_name': a placeholder in {template!r} is not just a name.", hint
        if substitutions is not None and name not in known:
            return (
                f"'run_name': {template!r} has the placeholder '{{{name}}}', which the pipeline"
                " does not have.",
                f"It has: {', '.join(f'{{{one}}}' for one in sorted(known))}; 'substitutions:' of"
                " the pipeline adds others.",
            )
    return None


def _fields_at(model: type[BaseModel], path: KeyPath) -> Iterable[str]:
    """Return the fields of the model at a path inside another one."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = (get_args(field.annotation) or (field.annotation,)) if field else ()
        models = (a for a in inner if isinstance(a, type) and issubclass(a, BaseModel))
        model = next(models, model)
    return model.model_fields


def _newer_zenml() -> str | None:
    """Return the installed ZenML's version if it is newer than the lists of keys."""
    from importlib import metadata

    from packaging.version import Version

    try:
        version = metadata.version("zenml")
    except metadata.PackageNotFoundError:
        return None
    return version if Version(version) > Version(ZENML_VERSION) else None
