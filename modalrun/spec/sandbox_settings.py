"""Separate the settings of sandboxes from ZenML's configuration in a run spec or command line.

modalrun resolves these settings itself, with its own precedence; ZenML gets the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modalrun.errors import UsageError
from modalrun.spec.fields import (
    FIELD_NAMES,
    OUR_FLAVOR_KEYS,
    RESOURCE_KEYS,
    ZENML_FLAVOR_KEYS,
    ResourceFields,
    SettingFields,
)
from modalrun.spec.precedence import SettingsLayer
from modalrun.spec.schema import COMPONENTS, GENERAL_SETTINGS, STEP_KEYS, OurKeys
from modalrun.spec.validation import (
    Mistakes,
    check,
    check_zenml_names,
    mapping,
    refuse_unknown,
)
from modalrun.spec.yaml_source import KeyPath, YamlSource


@dataclass(frozen=True)
class SandboxSettings:
    """Hold the settings of sandboxes that one source sets, and the rest of its configuration.

    Attributes:
        pipeline: The pipeline's.
        steps: Single steps'.
        rest: The run configuration without them.
    """

    pipeline: SettingsLayer
    steps: Mapping[str, SettingsLayer]
    rest: dict[str, Any]


def foreign_note(where: str, key: str) -> str:
    """Note that settings of ZenML's own Modal flavors are used."""
    return f"{where}: '{key}', written for ZenML's own Modal flavor, is read as 'orchestrator'"


def read_sandboxes(
    source: YamlSource,
    ours: OurKeys,
    configuration: Mapping[str, Any],
    mistakes: Mistakes,
    *,
    compiled: bool,
) -> SandboxSettings:
    """Separate what a source sets for sandboxes from its run configuration.

    Args:
        source: The run spec's file, or the command line.
        ours: Its keys that are modalrun's.
        configuration: Its keys that are ZenML's.
        mistakes: Collects the mistakes; with any, the result is not to be used.
        compiled: Whether the spec is for a compiled deployment, which ZenML won't compile again:
            Docker settings are then separated too.
    """
    reader = _Reader(source, mistakes, keep_docker=not compiled)
    rest = dict(configuration)
    pipeline, settings = reader.layer(("settings",), rest.pop("settings", None))
    if settings:
        rest["settings"] = settings
    steps: dict[str, SettingsLayer] = {}
    given_steps = rest.pop("steps", None)
    if given_steps is not None:
        rest["steps"] = {}
        for name, step in reader.mapping(("steps",), given_steps).items():
            at = ("steps", str(name))
            # `steps: {train: }` sets nothing; ZenML would refuse the null.
            left = reader.mapping(at, step)
            check_zenml_names(source, at, left, STEP_KEYS, mistakes)
            steps[str(name)], settings = reader.layer((*at, "settings"), left.pop("settings", None))
            rest["steps"][str(name)] = {**left, "settings": settings} if settings else left
    with mistakes.collecting():
        pipeline = _with_short_forms(source, ours, pipeline)
    return SandboxSettings(pipeline, steps, rest)


@dataclass
class _Reader:
    source: YamlSource
    mistakes: Mistakes
    keep_docker: bool

    def layer(self, at: KeyPath, settings: Any) -> tuple[SettingsLayer, dict[str, Any]]:
        """Read one `settings:` section: what it sets for sandboxes, and the rest."""
        rest = self.mapping(at, settings)
        with self.mistakes.collecting():
            self._check_keys(at, rest)
        ours: dict[str, Any] = {}
        for key in (*reversed(ZENML_FLAVOR_KEYS), *OUR_FLAVOR_KEYS):
            value = rest.pop(key, None)
            if value is None:
                continue
            here = (*at, key)
            values = self.mapping(here, value)
            refuse_unknown(self.source, here, values, FIELD_NAMES, self.mistakes)
            with self.mistakes.collecting():
                known = {k: v for k, v in values.items() if k in FIELD_NAMES}
                check(self.source, here, SettingFields, known)
            ours.update({name: v for name, v in values.items() if v is not None})
            if key in ZENML_FLAVOR_KEYS:
                self.mistakes.notes.append(foreign_note(self.source.where(here), key))
        here = (*at, "resources")
        resources = self.mapping(here, rest.pop("resources", None))
        check_zenml_names(self.source, here, resources, RESOURCE_KEYS, self.mistakes)
        with self.mistakes.collecting():
            check(self.source, here, ResourceFields, resources)
        docker = {}
        if not self.keep_docker:
            docker = self.mapping((*at, "docker"), rest.pop("docker", None))
        return SettingsLayer(ours, resources, docker), rest

    def mapping(self, at: KeyPath, value: Any) -> dict[str, Any]:
        """Return a copy of a mapping; an empty one for None, and for a mistake."""
        held: dict[str, Any] = {}
        with self.mistakes.collecting():
            held.update(mapping(self.source, at, {} if value is None else value))
        return held

    def _check_keys(self, at: KeyPath, settings: Mapping[str, Any]) -> None:
        given = [key for key in OUR_FLAVOR_KEYS if key in settings]
        if len(given) > 1:
            raise UsageError(
                f"{self.source.where((*at, given[1]))}: settings for the orchestrator stand here"
                f" twice, as '{given[0]}' and as '{given[1]}'.",
                hint="Keep 'orchestrator'.",
            )
        for key in map(str, settings):
            separator = next((one for one in ":." if one in key), "")
            kind, _, selector = key.partition(separator) if separator else (key, "", "")
            if key not in GENERAL_SETTINGS and kind not in COMPONENTS:
                known = COMPONENTS if selector else {"orchestrator", *GENERAL_SETTINGS}
                check_zenml_names(self.source, at, [key], known, self.mistakes)
            elif kind == "orchestrator" and key not in {*OUR_FLAVOR_KEYS, *ZENML_FLAVOR_KEYS}:
                raise UsageError(
                    f"{self.source.where((*at, key))}: settings for the orchestrator"
                    f" '{selector}' have no effect on a modalrun run.",
                    hint="Write them under 'orchestrator'.",
                )


def _with_short_forms(source: YamlSource, ours: OurKeys, pipeline: SettingsLayer) -> SettingsLayer:
    """Add the settings that the keys `modal` and `image` stand for."""
    given: dict[KeyPath, Any] = {("modal", k): v for k, v in ours.modal.model_dump().items()}
    if ours.image is not None:
        given["image",] = ours.image.model_dump(exclude_none=True)
    settings = dict(pipeline.settings)
    for path, value in given.items():
        if value is None:
            continue
        key = str(path[-1])
        name = "modal_environment" if key == "environment" else key
        if settings.get(name) not in (None, value):
            shown = f": '{value}' here and '{settings[name]}'" if isinstance(value, str) else ","
            what = "Modal environment" if key == "environment" else key
            raise UsageError(
                f"{source.where(path)}: the {what} is given twice{shown}"
                f" {'under' if isinstance(value, str) else 'here and under'}"
                f" 'settings.orchestrator.{name}'.",
                hint="Keep one of them.",
            )
        settings[name] = value
    return replace(pipeline, settings=settings)
