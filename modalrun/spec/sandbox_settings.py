"""Separate the settings of sandboxes from ZenML's configuration in a run spec or command line.

modalrun resolves these settings itself, with its own precedence; ZenML gets the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modalrun.spec.fields import (
    OUR_FLAVOR_KEYS,
    RESOURCE_KEYS,
    ZENML_FLAVOR_KEYS,
    ResourceFields,
    SettingFields,
)
from modalrun.spec.precedence import SettingsLayer
from modalrun.spec.schema import COMPONENTS, GENERAL_SETTINGS, STEP_KEYS
from modalrun.spec.validation import Checker
from modalrun.spec.yaml_nodes import KeyPath


@dataclass(frozen=True)
class SandboxSettings:
    """Hold the settings of sandboxes that one source sets, and the rest of its configuration."""

    pipeline: SettingsLayer
    steps: Mapping[str, SettingsLayer]
    rest: dict[str, Any]


def other_flavor_note(where: str, key: str) -> str:
    """Note that settings of ZenML's own Modal flavors are used."""
    return f"{where}: '{key}', written for ZenML's own Modal flavor, is read as 'orchestrator'"


def read_sandboxes(
    checker: Checker, configuration: Mapping[str, Any], *, compiled: bool
) -> SandboxSettings:
    """Separate what a source sets for sandboxes from its run configuration.

    Args:
        checker: Checks the source and collects its mistakes; with any, the result is useless.
        configuration: Its keys that are ZenML's.
        compiled: Whether the spec is for a compiled deployment: Docker settings are separated too.
    """
    rest = dict(configuration)
    pipeline, settings = _layer(checker, ("settings",), rest.pop("settings", None), compiled)
    if settings:
        rest["settings"] = settings
    steps: dict[str, SettingsLayer] = {}
    given_steps = rest.pop("steps", None)
    if given_steps is not None:
        rest["steps"] = {}
        for name, step in checker.mapping(("steps",), given_steps).items():
            at = ("steps", name)
            # `steps: {train: }` sets nothing; ZenML would refuse the null.
            left = checker.mapping(at, step)
            checker.zenml_names(at, left, STEP_KEYS)
            own = left.pop("settings", None)
            steps[name], settings = _layer(checker, (*at, "settings"), own, compiled)
            rest["steps"][name] = {**left, "settings": settings} if settings else left
    return SandboxSettings(pipeline, steps, rest)


def _layer(
    checker: Checker, at: KeyPath, section: Any, compiled: bool
) -> tuple[SettingsLayer, dict[str, Any]]:
    """Read one `settings:` section: what it sets for sandboxes, and the rest."""
    rest = checker.mapping(at, section)
    _check_keys(checker, at, rest)
    ours: dict[str, Any] = {}
    for key in (*reversed(ZENML_FLAVOR_KEYS), *OUR_FLAVOR_KEYS):
        value = rest.pop(key, None)
        if value is None:
            continue
        here = (*at, key)
        values = checker.mapping(here, value)
        checked = checker.values(here, SettingFields, values)
        ours.update(checked.values() if checked else {})
        if key in ZENML_FLAVOR_KEYS:
            checker.mistakes.notes.append(other_flavor_note(checker.source.where(here), key))
    here = (*at, "resources")
    resources = checker.mapping(here, rest.pop("resources", None))
    checker.zenml_names(here, resources, RESOURCE_KEYS)
    checker.values(here, ResourceFields, resources)
    docker = checker.mapping((*at, "docker"), rest.pop("docker", None)) if compiled else {}
    return SettingsLayer(ours, resources, docker), rest


def _check_keys(checker: Checker, at: KeyPath, settings: Mapping[str, Any]) -> None:
    given = [key for key in OUR_FLAVOR_KEYS if key in settings]
    if len(given) > 1:
        checker.error(
            (*at, given[1]),
            f"settings for the orchestrator are given twice, as '{given[0]}' and as '{given[1]}'.",
            "Keep 'orchestrator'.",
        )
    for key in settings:
        separator = next((one for one in ":." if one in key), "")
        kind, _, selector = key.partition(separator) if separator else (key, "", "")
        if key not in GENERAL_SETTINGS and kind not in COMPONENTS:
            known = COMPONENTS if selector else {"orchestrator", *GENERAL_SETTINGS}
            checker.zenml_names(at, [key], known)
        elif kind == "orchestrator" and key not in {*OUR_FLAVOR_KEYS, *ZENML_FLAVOR_KEYS}:
            checker.error(
                (*at, key),
                f"settings for the orchestrator '{selector}' have no effect on a modalrun run.",
                "Write them under 'orchestrator'.",
            )
