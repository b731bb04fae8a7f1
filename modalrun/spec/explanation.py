"""Say where a run spec has its parameters from, and which variables its settings take. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from modalrun.spec.fields import OUR_FLAVOR_KEYS, ZENML_FLAVOR_KEYS
from modalrun.spec.messages import format_value
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.step_keys import is_for
from modalrun.spec.yaml_nodes import KeyPath

_SECTIONS = (*OUR_FLAVOR_KEYS, *ZENML_FLAVOR_KEYS, "resources")
_SECRET = re.compile(r"token|secret|passw|credential|key", re.IGNORECASE)
_OF_STEP = {one.label: one for one in (Origin.COMMAND_LINE_STEP, Origin.SPEC_STEP)}
_OF_PIPELINE = {one.label: one for one in (Origin.COMMAND_LINE, Origin.SPEC_PIPELINE)}
"""The sources of values that a run spec sets for a step, and for all."""


def parameters(spec: RunSpec) -> Iterator[tuple[str, str, str, str]]:
    """Yield the parameters of the pipeline and its steps: step, name, value and source.

    The value of a variable, and of what may be a secret, is not shown.
    """
    configuration = spec.run_configuration
    owners: dict[KeyPath, Any] = {(): configuration}
    owners |= {("steps", name): step for name, step in configuration.get("steps", {}).items()}
    for above, owner in owners.items():
        for name, value in (owner.get("parameters") or {}).items():
            path = (*above, "parameters", name)
            flag, written = spec.command_line.flag(path), _written(spec, path)
            # As it is written: the type that the code declares decides what it is.
            scalar = spec.scalar(path)
            shown = written or (scalar.text if scalar is not None else format_value(value))
            # A variable may have a default, which is the secret.
            shown = "***" if _SECRET.search(name) else shown
            source = "command line" if flag else "run spec"
            yield str(above[1]) if above else "run", f"parameter {name}", shown, source


def variables(spec: RunSpec, step: str, setting: str, source: str) -> str | None:
    """Return the text with variables that a setting of a sandbox is written as; None without any.

    Args:
        step: The sandbox's step; "" for that of the run.
        source: Where its value comes from.
    """
    above: KeyPath = ()
    if source in _OF_STEP:
        above = ("steps", _key(spec, step, setting, _OF_STEP[source]))
    elif source not in _OF_PIPELINE:
        return None
    paths = ((*above, "settings", section, setting) for section in _SECTIONS)
    return next(filter(None, (_written(spec, path) for path in paths)), None)


def _key(spec: RunSpec, step: str, setting: str, origin: Origin) -> str:
    """Return the key under `steps:` that sets a setting of a step: its id, or `train*`."""
    keys = (
        key
        for key, layers in spec.step_layers.items()
        if is_for(key, step) and origin in layers and layers[origin].get(setting) is not None
    )
    return max(keys, key=lambda key: (key == step, len(key)), default=step)


def _written(spec: RunSpec, path: KeyPath) -> str | None:
    """Return what is written with variables for a value, or for the values in it."""
    source = spec.command_line if spec.command_line.flag(path) else spec.source
    place = source.written(path)
    found = (s.written for at, s in source.scalars.items() if at[: len(place)] == place)
    return ", ".join(filter(None, found)) or None
