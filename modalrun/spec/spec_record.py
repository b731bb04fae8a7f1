"""Keep a run spec with the deployment that was compiled from it, so that a rerun can compile it.

ZenML stores it in the deployment's `client_environment`, which nobody can change afterwards. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from modalrun.run.values import adapter
from modalrun.spec.overrides import CommandLineSource, Override, command_line, merged, overlap
from modalrun.spec.step_keys import is_for
from modalrun.spec.yaml_nodes import KeyPath

KEY = "modalrun_spec"

MAX_LENGTH = 30_000
"""Characters. ZenML stores an environment of up to 65,535, with all packages of the machine."""

_OF_THE_MACHINE = ("target", "source_root", "deployment", "stack")


@dataclass(frozen=True)
class SpecRecord:
    """Hold the keys that a deployment was compiled with.

    Attributes:
        file: Those of the run spec.
        flags: Those of the command line: flag, path and value.
    """

    file: Mapping[str, Any]
    flags: Sequence[tuple[str, tuple[str, ...], Any]] = ()

    @property
    def texts(self) -> frozenset[str]:
        """All texts among the values. Their variables were replaced when the spec was read."""
        return frozenset(_texts([self.file, *(value for _, _, value in self.flags)]))

    def with_keys(self, file: Mapping[str, Any], flags: CommandLineSource) -> SpecRecord:
        """Return the record with the keys of another submission, which override its own."""
        file = {key: value for key, value in file.items() if key not in _OF_THE_MACHINE}
        new = list(_leaves(file))
        kept = [one for one in self.flags if not any(overlap(one[1], path) for path in new)]
        flags = SpecRecord({}, kept).command_line(flags)
        return SpecRecord(
            merged(self.file, file),
            [
                (one.flag, one.path, one.value)
                for one in flags.overrides
                if one.path[0] not in _OF_THE_MACHINE
            ],
        )

    def as_read(self, configuration: Mapping[str, Any]) -> SpecRecord:
        """Return the record with arguments as they were read for their types: 007 may be text.

        Args:
            configuration: The run configuration, after it was read for the pipeline.
        """
        own = command_line([Override(*one) for one in self.flags])
        steps = configuration.get("steps") or {}
        keys = merged(self.file, own.data).get("steps") or {}
        read = {
            "parameters": configuration.get("parameters") or {},
            "steps": {key: {"parameters": _arguments(key, keys, steps)} for key in keys},
        }
        flags = replace(own, data=_as_read(own.data, read)).overrides
        return SpecRecord(
            _as_read(self.file, read), [(one.flag, one.path, one.value) for one in flags]
        )

    def command_line(self, given: CommandLineSource) -> CommandLineSource:
        """Return the command line of a rerun: what it gives, and the rest of the record's.

        What it gives inside of a mapping of the record's becomes a part of that.
        """
        kept = [
            Override(*one)
            for one in self.flags
            if not any(_is_in(one[1], path) for path in given.flags)
        ]
        own = command_line(kept)
        flags = {
            path: flag
            for path, flag in given.flags.items()
            if not any(_is_in(path, one) for one in own.flags)
        }
        return replace(given, data=merged(own.data, given.data), flags={**own.flags, **flags})

    def to_environment(self) -> dict[str, Any]:
        """Return the record as a part of a deployment's environment; nothing if it is too long."""
        # ZenML stores JSON; YAML has dates, too.
        text = json.dumps({"file": self.file, "flags": self.flags}, default=str)
        return {KEY: json.loads(text)} if len(text) <= MAX_LENGTH else {}

    @staticmethod
    def of(environment: Mapping[str, Any]) -> SpecRecord | None:
        """Read the record in a deployment's environment; None where there is none."""
        if (found := environment.get(KEY)) is None:
            return None
        try:
            return adapter(SpecRecord).validate_python(found)
        except ValidationError:
            return None


def _arguments(key: str, keys: Mapping[str, Any], steps: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a key gives to the steps that it is for, as they were read."""
    found: dict[str, Any] = {}
    for step, configuration in steps.items():
        for name, value in (configuration.get("parameters") or {}).items():
            givers = [
                one
                for one, given in keys.items()
                if is_for(one, step) and name in ((given or {}).get("parameters") or {})
            ]
            strongest = max(givers, key=lambda one: (one == step, len(one)), default=None)
            # Of several steps, one may declare it as text.
            if key == strongest and (name not in found or isinstance(value, str)):
                found[name] = value
    return found


def _as_read(value: Any, read: Any) -> Any:
    """Return a value, and those in it, as another mapping has them."""
    if isinstance(value, Mapping) and isinstance(read, Mapping):
        if any(k not in read and not isinstance(k, str) for k in value):
            # Its keys were read as text: 007 is "007".
            return read
        return {k: _as_read(v, read[k]) if k in read else v for k, v in value.items()}
    return read


def _is_in(path: KeyPath, other: KeyPath) -> bool:
    return path[: len(other)] == other


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _leaves(data: Mapping[str, Any], above: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in data.items():
        path = (*above, key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path
