"""Resolve a value that is set in several places, and keep where it came from. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modalrun.errors import UsageError
from modalrun.spec.fields import split_gpu


class Origin(enum.IntEnum):
    """The places that a value can be set in, the strongest first.

    This order is the precedence rule; `docs/configuration.md` prints it.

    Attributes:
        label: The place, as `modalrun plan` shows it.
    """

    label: str

    def __new__(cls, rank: int, label: str) -> Origin:
        """Make a member that compares by its rank."""
        member = int.__new__(cls, rank)
        member._value_ = rank
        member.label = label
        return member

    COMMAND_LINE_STEP = 0, "command line, step"
    COMMAND_LINE = 1, "command line"
    SPEC_STEP = 2, "run spec, step"
    SPEC_PIPELINE = 3, "run spec, pipeline"
    CODE_STEP = 4, "step in code"
    CODE_PIPELINE = 5, "pipeline in code"
    COMPONENT = 6, "component"
    DEFAULT = 7, "default"


@dataclass(frozen=True)
class SettingsLayer:
    """Hold what one place sets for a pipeline or a step. A missing field, or None, is not set.

    Attributes:
        settings: Orchestrator settings, by field.
        resources: `ResourceSettings`, by field.
        docker: `DockerSettings`, by field; ZenML merges those of the code itself.
        labels: By field, a more exact source than the origin's label.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    docker: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """Return the value of a setting or resource; None if it is not set."""
        value = self.settings.get(name)
        return self.resources.get(name) if value is None else value


Layers = Mapping[Origin, SettingsLayer]
"""All that is set for one pipeline or step, by origin."""


@dataclass(frozen=True)
class Value:
    """Hold a resolved value and its origin.

    Attributes:
        value: The value; None if Modal decides.
        source: The origin for people, such as "run spec, step" or "highest of steps: train".
    """

    value: Any
    origin: Origin
    source: str


MERGED_FIELDS = frozenset({"volumes"})
"""Fields that hold entries by name: entries of all layers are merged, the strongest wins."""


def resolve(name: str, *layers: Layers) -> Value | None:
    """Return a field's value from the strongest layer that sets it; None if none does."""
    setters = sorted(
        (
            (origin, layer)
            for by_origin in layers
            for origin, layer in by_origin.items()
            if origin < Origin.DEFAULT and layer.get(name) is not None
        ),
        key=lambda setter: setter[0],
    )
    if not setters:
        return None
    origin, strongest = setters[0]
    value = strongest.get(name)
    if name in MERGED_FIELDS:
        value = {}
        for _, layer in reversed(setters):
            value.update(layer.get(name))
    return Value(value, origin, strongest.labels.get(name) or origin.label)


def resolve_or(name: str, default: Any, layers: Layers) -> Value:
    """Return a field's value, or its default with the origin `DEFAULT`."""
    return resolve(name, layers) or Value(default, Origin.DEFAULT, Origin.DEFAULT.label)


def flatten(pipeline: Layers, step: Layers | None = None) -> SettingsLayer:
    """Merge all layers of the pipeline, or of one step, into one.

    A field that a step sets takes the strongest value, the pipeline's included: the run spec's
    pipeline beats the step in code. A field that the step doesn't set stays unset. A count inside
    a GPU type ("A100:2") becomes a `gpu_count`.

    Raises:
        UsageError: A count inside a GPU type contradicts the `gpu_count` of the same origin.
    """
    own = pipeline if step is None else step
    every = (pipeline,) if step is None else (pipeline, step)
    values: dict[str, dict[str, Any]] = {"settings": {}, "resources": {}}
    labels: dict[str, str] = {}

    def put(kind: str, name: str, value: Value | None) -> None:
        if value is not None:
            values[kind][name] = value.value
            labels[name] = value.source

    for kind in values:
        names = {name for layer in own.values() for name in getattr(layer, kind)}
        for name in sorted(names - {"gpu", "gpu_count"}):
            if resolve(name, own) is not None:
                put(kind, name, resolve(name, *every))
    types, count = _gpu(own)
    if step is not None:
        types, count = _stronger(types, count, *_gpu(pipeline))
    put("settings", "gpu", types)
    put("resources", "gpu_count", count)
    return SettingsLayer(**values, labels=labels)


def _gpu(layers: Layers) -> tuple[Value | None, Value | None]:
    """Return the GPU types and their count; a count inside the types is taken out of them."""
    types, count = resolve("gpu", layers), resolve("gpu_count", layers)
    if types is None:
        return None, count
    listed = [types.value] if isinstance(types.value, str) else list(types.value)
    split = [split_gpu(text) for text in listed]
    inside = {number for _, number in split if number is not None}
    if not inside:
        return types, count
    if count is not None and count.origin == types.origin and inside != {count.value}:
        raise UsageError(
            f"gpu '{', '.join(listed)}' and gpu_count {count.value} contradict each other"
            f" ({types.source}).",
            hint="Write the count once.",
        )
    bare = [name for name, _ in split]
    bare_types = replace(types, value=bare[0] if isinstance(types.value, str) else bare)
    if count is not None and count.origin < types.origin:
        return bare_types, count
    if len({number or 1 for _, number in split}) > 1:
        # Each type has a count of its own.
        return types, None
    return bare_types, replace(types, value=max(inside))


def _stronger(
    types: Value | None, count: Value | None, over_types: Value | None, over_count: Value | None
) -> tuple[Value | None, Value | None]:
    """Replace a step's GPU types and count by those of the pipeline that are stronger."""
    if count is not None and count.value == 0:
        # A CPU step stays one, whatever stronger layers set.
        return None, count
    asks = types or count
    if types is not None and over_types is not None and over_types.origin < types.origin:
        types = over_types
    if asks is not None and over_count is not None and over_count.origin < (count or asks).origin:
        count = over_count
    return types, count
