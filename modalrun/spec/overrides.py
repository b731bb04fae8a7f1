"""Read the keys that the command line sets: `--gpu H100`, `--set steps.train.enable_cache=false`.

Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.spec.places import canonical
from modalrun.spec.schema import STEP_KEYS
from modalrun.spec.yaml_source import KeyPath, YamlSource, read_value

_PART = r'(?:"([^"]+)"|([^".]+))'
"""A part of a key's path, which is in quotes if it has dots of its own."""

_FLAVORS = {"orchestrator": ("modalrun", "modal"), "step_operator": ("modal",)}


@dataclass(frozen=True)
class Override:
    """Set one key of a run spec, by its path, to a plain value; `flag` is the user's: "--gpu"."""

    flag: str
    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True)
class CommandLineSource(YamlSource):
    """Hold the overrides of a command line like a run spec, with flags in place of lines."""

    flags: Mapping[KeyPath, str]

    def flag(self, path: KeyPath) -> str | None:
        """Return the flag that set a key, or a key above or below it; None if none did."""
        return next((flag for at, flag in self.flags.items() if _overlap(at, path)), None)

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
    if path[0] == "steps":
        # So may a step's id, which ends where a key of a step begins.
        end = next((i for i in range(2, len(path)) if path[i] in STEP_KEYS), 2)
        path[1:end] = [".".join(path[1:end])]
    return Override(f"--set {key}", tuple(path), _yaml(value, f"--set {key}"))


def param_option(text: str) -> Override:
    """Read `--param NAME=VALUE`, a parameter of the pipeline; the value is YAML.

    Raises:
        UsageError: As for `set_option`.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        hint = "As in '--param epochs=3'."
        raise UsageError(f"--param {text}: a name and a value are needed.", hint=hint)
    return Override(f"--param {name}", ("parameters", name), _yaml(value, f"--param {name}"))


def command_line(overrides: Iterable[Override]) -> CommandLineSource:
    """Nest all overrides in one mapping.

    Raises:
        UsageError: Two flags set the same key, or one sets a key inside another's value.
    """
    data: dict[str, Any] = {}
    flags: dict[KeyPath, str] = {}
    for override in itertools.chain.from_iterable(map(_in_place, overrides)):
        for path, flag in flags.items():
            if _overlap(path, override.path):
                raise UsageError(
                    f"{flag} and {override.flag} both set '{'.'.join(override.path)}'.",
                    hint="Keep one of them.",
                )
        flags[override.path] = override.flag
        here: Any = data
        for part in override.path[:-1]:
            here = here.setdefault(part, {})
        here[override.path[-1]] = override.value
    return CommandLineSource(Path("command line"), data, {}, flags)


def _in_place(override: Override) -> Iterator[Override]:
    """Give overrides the paths that short forms stand for; `modal` stands for several."""
    if override.path == ("modal",) and isinstance(override.value, Mapping):
        for key, value in override.value.items():
            yield from _in_place(Override(override.flag, ("modal", str(key)), value))
    else:
        yield replace(override, path=tuple(map(str, canonical(override.path))))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; `above` overrides what is not a mapping in both."""
    result = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = merged(below[key], above[key])
    return result


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    """Whether one key is the other, or inside it."""
    return all(a == b for a, b in zip(one, other, strict=False))


def _yaml(text: str, what: str) -> Any:
    try:
        return read_value(text, what)
    except UsageError as error:
        hint = "Put quotes around text with special characters."
        raise UsageError(f"{what}: the value is not YAML.", hint=hint) from error
