"""Match the keys under `steps:` with the steps of a pipeline. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from modalrun.spec.overrides import merged
from modalrun.spec.precedence import MERGED_FIELDS, Layers, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.validation import Mistakes
from modalrun.spec.yaml_nodes import KeyPath
from modalrun.spec.yaml_source import YamlSource
from modalrun.util.nearest import did_you_mean
from modalrun.util.text import listing

S = TypeVar("S", bound=YamlSource)


def for_steps(spec: RunSpec, steps: Mapping[str, str], pipeline: str, *, dynamic: bool) -> RunSpec:
    """Return a spec in which each key under `steps:` is a step: `train*` becomes several.

    Of two keys for a step, its own name is stronger, then the longer one.

    Args:
        steps: The invocation ids of the pipeline's steps -> the names of the steps.
        dynamic: Whether these are only the steps that the pipeline lists in `depends_on`.

    Raises:
        UsageError: A key is for no step.
    """
    configured = spec.run_configuration.get("steps") or {}
    keys = sorted({*configured, *spec.step_layers}, key=lambda key: (key in steps, len(key)))
    matches = {key: [step for step in steps if is_for(key, step)] for key in keys}
    mistakes = Mistakes()
    for key in keys:
        if not matches[key]:
            problem, hint = _no_step(key, steps, pipeline, dynamic=dynamic)
            mistakes.found.append(spec.error(("steps", key), problem, hint))
    mistakes.raise_all()
    covered = {step for matched in matches.values() for step in matched}
    for key in keys:
        missing = [s for s in steps if key in steps and steps[s] == steps[key] and s not in covered]
        if missing:
            place = spec.where(("steps", key))
            mistakes.notes.append(
                f"{place}: '{key}' is one of the calls of that step; the others"
                f" ({', '.join(missing)}) are as the code has them. The key '{key}*' is for all"
            )
    if all(key in steps for key in keys):
        return replace(spec, notes=(*spec.notes, *mistakes.notes))
    configuration: dict[str, Any] = {}
    layers: dict[str, Layers] = {}
    written: dict[KeyPath, tuple[KeyPath, ...]] = {}
    for key in keys:
        for step in matches[key]:
            if key in configured:
                configuration[step] = merged(configuration.get(step, {}), configured[key])
            layers[step] = _joined(layers.get(step, {}), spec.step_layers.get(key, {}))
            at = ("steps", step)
            written[at] = (("steps", key), *written.get(at, ()))
    return replace(
        spec,
        run_configuration={**spec.run_configuration, "steps": configuration},
        step_layers=layers,
        source=_named(spec.source, written),
        command_line=_named(spec.command_line, written),
        notes=(*spec.notes, *mistakes.notes),
    )


def _no_step(
    key: str, steps: Mapping[str, str], pipeline: str, *, dynamic: bool
) -> tuple[str, str]:
    """Return what is wrong with a key that is for no step, and what to do."""
    known = listing(steps, most=20)
    if dynamic:
        return (
            f"the dynamic pipeline '{pipeline}' has no step '{key}' in its 'depends_on'.",
            f"A run spec can name only the steps listed there{f': {known}' if steps else ''}."
            " List the step in '@pipeline(dynamic=True, depends_on=[...])', or give it its"
            " settings in the code: '@step(settings=...)'.",
        )
    otherwise = f"Its steps: {known}." if steps else "It has no steps."
    return f"the pipeline '{pipeline}' has no step '{key}'.", did_you_mean(key, steps, otherwise)


def is_for(key: str, step: str) -> bool:
    """Return whether a key under `steps:` is for a step."""
    return key == step or (key.endswith("*") and step.startswith(key[:-1]))


def _joined(below: Layers, above: Layers) -> Layers:
    """Join the settings that two keys give to one step, place by place; `above` is stronger."""
    joined = dict(below)
    for origin, layer in above.items():
        base = below.get(origin, SettingsLayer())
        settings = {**base.settings, **layer.settings}
        for name in MERGED_FIELDS & base.settings.keys() & layer.settings.keys():
            settings[name] = {**base.settings[name], **layer.settings[name]}
        joined[origin] = SettingsLayer(
            settings, {**base.resources, **layer.resources}, {**base.docker, **layer.docker}
        )
    return joined


def _named(source: S, written: Mapping[KeyPath, tuple[KeyPath, ...]]) -> S:
    return replace(source, names={**source.names, **written})
