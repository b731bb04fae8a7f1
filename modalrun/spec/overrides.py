"""Read the keys that the command line sets: `--gpu H100`, `--set steps.train.enable_cache=false`.

Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.spec.places import canonical
from modalrun.spec.schema import STEP_KEYS
from modalrun.spec.yaml_nodes import KeyPath, Reading, Scalar, is_variable
from modalrun.spec.yaml_source import YamlSource, read_text, read_value
from modalrun.util.text import shell_word

_PART = r'(?:"([^"]+)"|([^".]+))'
"""A part of a key's path, which is in quotes if it has dots of its own."""

_FLAVORS = {"orchestrator": ("modalrun", "modal"), "step_operator": ("modal",)}


@dataclass(frozen=True)
class Override:
    """Set one key of a run spec, by its path, to a plain value.

    Attributes:
        flag: The user's flag: "--gpu".
        reading: What else is known of a value that is read from a text.
    """

    flag: str
    path: tuple[str, ...]
    value: Any
    reading: Reading = field(default_factory=lambda: Reading(""), compare=False, repr=False)


@dataclass(frozen=True)
class CommandLineSource(YamlSource):
    """Hold the overrides of a command line like a run spec, with flags in place of lines."""

    flags: Mapping[KeyPath, str]

    def flag(self, path: KeyPath) -> str | None:
        """Return the flag that set a key, or a key above or below it; None if none did."""
        paths = (path, self.written(path))
        return next(
            (flag for at, flag in self.flags.items() if any(overlap(at, one) for one in paths)),
            None,
        )

    def gives(self, path: KeyPath) -> bool:
        """Return whether there is a value for a key."""
        value: Any = self.data
        for part in path:
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True

    @property
    def overrides(self) -> list[Override]:
        """The overrides, with the paths that short forms stand for."""
        found: list[Override] = []
        for path, flag in self.flags.items():
            value: Any = self.data
            for part in path:
                value = value[part]
            found.append(Override(flag, tuple(map(str, path)), value))
        return found

    def where(self, key_path: Iterable[str | int]) -> str:
        """Return the flag of a key, for messages."""
        return self.flag(tuple(key_path)) or "the command line"


def set_option(text: str) -> Override:
    """Read `--set KEY.PATH=VALUE`; the value is YAML, a part with dots stands in quotes.

    Raises:
        UsageError: There is no `=`, the path has an empty part, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    hint = "As in '--set settings.orchestrator.gpu=H100'."
    if not equals:
        raise UsageError(f"--set {text}: there is no '='.", hint=hint)
    if not re.fullmatch(rf"{_PART}(?:\.{_PART})*", key):
        raise UsageError(f"--set {key}: '{key}' is not the path of a key.", hint=hint)
    path: list[str] = []
    for quoted, plain in re.findall(_PART, key):
        # The settings key "orchestrator.modal" has a dot of its own.
        if path and plain in _FLAVORS.get(path[-1], ()) and "settings" in path[-2:-1]:
            path[-1] = f"{path[-1]}.{plain}"
        else:
            path.append(quoted or plain)
    if path[0] == "steps" and path[1:]:
        # So may a step's id, which ends where a key of a step begins.
        end = next((i for i in range(2, len(path)) if path[i] in STEP_KEYS), 2)
        path[1:end] = [".".join(path[1:end])]
    return _read(f"--set {key}", tuple(path), value)


def param_option(text: str) -> Override:
    """Read `--param NAME=VALUE`, a parameter of the pipeline; the value is YAML, or else text.

    Raises:
        UsageError: A name or value is missing.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        hint = "As in '--param epochs=3'."
        raise UsageError(f"--param {text}: a name and a value are needed.", hint=hint)
    if "." in name:
        raise UsageError(
            f"--param {name}: the name of a parameter has no dot.",
            hint=f"A field of a parameter is set as in '--set {shell_word(f'parameters.{text}')}'.",
        )
    return _read(f"--param {name}", ("parameters", name), value)


def command_line(overrides: Iterable[Override]) -> CommandLineSource:
    """Nest all overrides in one mapping.

    Raises:
        UsageError: Two flags set the same key, or one sets a key inside another's value.
    """
    data: dict[str, Any] = {}
    flags: dict[KeyPath, str] = {}
    placed = list(itertools.chain.from_iterable(map(_in_place, overrides)))
    for override in placed:
        for path, flag in flags.items():
            if overlap(path, override.path):
                raise UsageError(
                    f"{flag} and {override.flag} both set '{'.'.join(override.path)}'.",
                    hint="Keep one of them.",
                )
        flags[override.path] = override.flag
        here: Any = data
        for part in override.path[:-1]:
            here = here.setdefault(part, {})
        here[override.path[-1]] = override.value
    readings = [(override.path, override.reading) for override in placed]
    return CommandLineSource(
        Path("command line"),
        data,
        {},
        flags,
        scalars={(*at, *path): v for at, one in readings for path, v in one.scalars.items()},
        unset={(*at, *path): v for at, one in readings for path, v in one.unset.items()},
        literals={text for _, one in readings for text in one.literals},
    )


def _in_place(override: Override) -> Iterator[Override]:
    """Give overrides the paths that short forms stand for; `modal` stands for several."""
    if override.path == ("modal",) and isinstance(override.value, Mapping):
        for key, value in override.value.items():
            yield from _in_place(replace(override, path=("modal", str(key)), value=value))
    else:
        yield replace(override, path=tuple(map(str, canonical(override.path))))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; `above` overrides what is not a mapping in both."""
    result = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = merged(below[key], above[key])
    return result


def overlap(one: KeyPath, other: KeyPath) -> bool:
    """Whether one key is the other, or inside it."""
    return all(a == b for a, b in zip(one, other, strict=False))


def _read(flag: str, path: tuple[str, ...], text: str) -> Override:
    """Read a value; one that is declared as text is just what the user has typed."""
    typed, of_typed = read_text(text, flag)
    if is_variable(path) and not typed.lstrip().startswith(("'", '"')):
        return Override(flag, path, typed, of_typed)
    may_be_text = is_variable(path) or "parameters" in (path[0], *path[2:3])
    try:
        value, reading = read_value(text, flag, path)
    except UsageError as error:
        if may_be_text and error.__cause__ is not None:
            return Override(flag, path, typed, of_typed)
        hint = "Put quotes around text with special characters."
        raise UsageError(f"{flag}: the value is not YAML.", hint=hint) from error
    is_null = value is None and typed.strip().lower() in {"", "~", "null"}
    is_plain = value is None or (isinstance(value, str) and reading.is_plain)
    if may_be_text and is_plain and not is_null:
        # YAML strips blanks and comments, and an indicator such as '|' or '&a' has no value.
        return Override(flag, path, typed, of_typed)
    if value is None and not may_be_text and "extra" not in path:
        # Like an empty key of a file it would set nothing, and what the file says would stay.
        raise UsageError(
            f"{flag}: an empty value takes nothing back.",
            hint="Set another value ('settings.resources.gpu_count=0' is no GPU), or remove the key"
            " from the run spec.",
        )
    if not isinstance(value, str):
        with_variables = of_typed.scalars.get(())
        known = with_variables or Scalar(typed, value)
        reading.scalars[()] = replace(known, value=value)
    return Override(flag, path, value, reading)
