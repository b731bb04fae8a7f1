"""What a run spec or a command line says about sandboxes, taken out of ZenML's configuration.

modalrun resolves these settings itself, with its own precedence; ZenML sees the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, field_validator

from modalrun.errors import UsageError
from modalrun.spec.fields import (
    FIELD_NAMES,
    OUR_FLAVOR_KEYS,
    RESOURCE_KEYS,
    ZENML_FLAVOR_KEYS,
    ImageSetting,
    ResourceFields,
    SettingFields,
    modal_name,
)
from modalrun.spec.mistakes import Mistakes
from modalrun.spec.precedence import SettingsLayer
from modalrun.spec.schema import COMPONENTS, GENERAL_SETTINGS, STEP_KEYS, ModalSection
from modalrun.spec.validation import check, mapping, refuse_unknown, unknown_key
from modalrun.spec.yaml_source import KeyPath, YamlSource


@dataclass(frozen=True)
class Sandboxes:
    """What one source says.

    Attributes:
        pipeline: About the pipeline.
        steps: About single steps.
        rest: The run configuration without it.
        notes: What a user should know about how it was read.
    """

    pipeline: SettingsLayer
    steps: Mapping[str, SettingsLayer]
    rest: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass
class _Reader:
    source: YamlSource
    keep_docker: bool
    mistakes: Mistakes
    notes: list[str] = field(default_factory=list)

    def written(self, at: KeyPath, settings: Any) -> tuple[SettingsLayer, dict[str, Any]]:
        """One `settings:` section: what it says about sandboxes, and the rest."""
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
            self._check_fields(here, SettingFields, values, FIELD_NAMES)
            ours.update({name: v for name, v in values.items() if v is not None})
            if key in ZENML_FLAVOR_KEYS:
                self.notes.append(foreign_note(self.source.where(here), key))
        resources = self._section(at, rest, "resources")
        self._check_fields((*at, "resources"), ResourceFields, resources, RESOURCE_KEYS)
        docker = {} if self.keep_docker else self._section(at, rest, "docker")
        return SettingsLayer(ours, resources, docker), rest

    def _section(self, at: KeyPath, settings: dict[str, Any], key: str) -> dict[str, Any]:
        return self.mapping((*at, key), settings.pop(key, None))

    def mapping(self, at: KeyPath, value: Any) -> dict[str, Any]:
        """A copy of a value that has to be a mapping; an empty one for nothing or a mistake."""
        held: dict[str, Any] = {}
        with self.mistakes.collecting():
            held.update(mapping(self.source, at, {} if value is None else value))
        return held

    def _check_fields(
        self, at: KeyPath, model: type[BaseModel], values: dict[str, Any], known: Iterable[str]
    ) -> None:
        with self.mistakes.collecting():
            refuse_unknown(self.source, at, values, known)
        with self.mistakes.collecting():
            check(self.source, at, model, {k: v for k, v in values.items() if k in known})

    def _check_keys(self, at: KeyPath, settings: Mapping[str, Any]) -> None:
        given = [key for key in OUR_FLAVOR_KEYS if key in settings]
        if len(given) > 1:
            raise UsageError(
                f"{self.source.where((*at, given[1]))}: settings for the orchestrator stand here"
                f" twice, as '{given[0]}' and as '{given[1]}'.",
                hint="Keep 'orchestrator'.",
            )
        for key in map(str, settings):
            kind, selector = key, ""
            for separator in (":", "."):
                if separator in key:
                    kind, _, selector = key.partition(separator)
                    break
            if key not in GENERAL_SETTINGS and kind not in COMPONENTS:
                known = {"orchestrator", *GENERAL_SETTINGS}
                raise unknown_key(self.source, (*at, key), COMPONENTS if selector else known)
            if (
                kind == "orchestrator"
                and selector
                and key
                not in {
                    *OUR_FLAVOR_KEYS,
                    *ZENML_FLAVOR_KEYS,
                }
            ):
                raise UsageError(
                    f"{self.source.where((*at, key))}: settings for the orchestrator"
                    f" '{selector}' have no effect on a modalrun run.",
                    hint="Write them under 'orchestrator'.",
                )


def foreign_note(where: str, key: str) -> str:
    """The line of the plan that says that settings of ZenML's own flavors were understood."""
    return f"{where}: '{key}', written for ZenML's own Modal flavor, is read as 'orchestrator'"


def read_sandboxes(
    source: YamlSource,
    section: ModalSection,
    configuration: dict[str, Any],
    mistakes: Mistakes,
    *,
    compiled: bool,
    image: ImageSetting | None = None,
) -> Sandboxes:
    """Take what a source says about sandboxes out of its run configuration.

    Args:
        source: The run spec's file, or the command line.
        section: Its key `modal`.
        configuration: Its keys that are ZenML's.
        mistakes: Gets what is wrong; the result means nothing then.
        compiled: Whether it is about a compiled deployment, which ZenML won't compile again:
            Docker settings are then taken out too.
        image: Its key `image`.
    """
    reader = _Reader(source, keep_docker=not compiled, mistakes=mistakes)
    rest = dict(configuration)
    pipeline, settings = reader.written(("settings",), rest.pop("settings", None))
    if settings:
        rest["settings"] = settings
    steps: dict[str, SettingsLayer] = {}
    given_steps = rest.pop("steps", None)
    if given_steps is not None:
        rest["steps"] = {}
        for name, step in reader.mapping(("steps",), given_steps).items():
            at = ("steps", str(name))
            # `steps: {train: }` says nothing about train; ZenML would call the null an error.
            left = reader.mapping(at, step)
            with mistakes.collecting():
                refuse_unknown(source, at, left, STEP_KEYS)
            steps[str(name)], settings = reader.written(
                (*at, "settings"), left.pop("settings", None)
            )
            rest["steps"][str(name)] = {**left, "settings": settings} if settings else left
    with mistakes.collecting():
        pipeline = _with_modal_section(source, section, pipeline)
    with mistakes.collecting():
        pipeline = _with_image(source, image, pipeline)
    return Sandboxes(pipeline, steps, rest, tuple(reader.notes))


class _ModalNames(BaseModel):
    """Checked with the key `modal`, so that a bad name is reported at its own line."""

    environment: str | None = None

    @field_validator("environment")
    @classmethod
    def _fits_modal(cls, value: str | None) -> str | None:
        return modal_name(value)


def _with_modal_section(
    source: YamlSource, section: ModalSection, pipeline: SettingsLayer
) -> SettingsLayer:
    given = section.model_dump(exclude_none=True)
    if not given:
        return pipeline
    settings = dict(pipeline.settings)
    for key, value in given.items():
        name = "modal_environment" if key == "environment" else key
        if settings.get(name) not in (None, value):
            shown = f": '{value}' here and '{settings[name]}'" if isinstance(value, str) else ","
            what = "Modal environment" if key == "environment" else key
            raise UsageError(
                f"{source.where(('modal', key))}: the {what} is given twice{shown}"
                f" {'under' if isinstance(value, str) else 'here and under'}"
                f" 'settings.orchestrator.{name}'.",
                hint="Keep one of them.",
            )
        settings[name] = value
    check(source, ("modal",), _ModalNames, {"environment": given.get("environment")})
    check(source, ("modal",), SettingFields, {k: v for k, v in given.items() if k != "environment"})
    return SettingsLayer(settings, pipeline.resources, pipeline.docker)


def _with_image(
    source: YamlSource, image: ImageSetting | None, pipeline: SettingsLayer
) -> SettingsLayer:
    """The key `image` as the orchestrator setting that it stands for."""
    if image is None:
        return pipeline
    if pipeline.settings.get("image") is not None:
        raise UsageError(
            f"{source.where(('image',))}: the image is given twice, here and under"
            " 'settings.orchestrator.image'.",
            hint="Keep one of them.",
        )
    settings = {**pipeline.settings, "image": image.model_dump(exclude_none=True)}
    return SettingsLayer(settings, pipeline.resources, pipeline.docker)
