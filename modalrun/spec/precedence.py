"""Who wins when a value is written in several places, and where a value came from. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modalrun.errors import UsageError
from modalrun.spec.fields import split_gpu


class Origin(enum.IntEnum):
    """The places that a value can be written in, the strongest first.

    This order is the whole of the precedence rule; `docs/configuration.md` prints it.
    """

    COMMAND_LINE_STEP = 0
    COMMAND_LINE = 1
    SPEC_STEP = 2
    SPEC_PIPELINE = 3
    CODE_STEP = 4
    CODE_PIPELINE = 5
    COMPONENT = 6
    DEFAULT = 7

    @property
    def label(self) -> str:
        """The place in words."""
        return _LABELS[self]

    @property
    def of_a_step(self) -> bool:
        """Whether a value written there is a step's own."""
        return self in {Origin.COMMAND_LINE_STEP, Origin.SPEC_STEP, Origin.CODE_STEP}


_LABELS = {
    Origin.COMMAND_LINE_STEP: "command line, step",
    Origin.COMMAND_LINE: "command line",
    Origin.SPEC_STEP: "run spec, step",
    Origin.SPEC_PIPELINE: "run spec, pipeline",
    Origin.CODE_STEP: "step in code",
    Origin.CODE_PIPELINE: "pipeline in code",
    Origin.COMPONENT: "component",
    Origin.DEFAULT: "default",
}


@dataclass(frozen=True)
class SettingsLayer:
    """What one place says about sandboxes. A field that is missing or None is left open there.

    Attributes:
        settings: Orchestrator settings, by field.
        resources: `ResourceSettings`, by field.
        docker: `DockerSettings`, by field; ZenML merges those of the code itself.
        labels: By field, a better name for where a value came from than the place's own.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    docker: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """The value of a field of settings or resources; None where it is left open."""
        value = self.settings.get(name)
        return self.resources.get(name) if value is None else value


Layers = Mapping[Origin, SettingsLayer]
"""All that is written about one thing (a pipeline, a step), by place."""


@dataclass(frozen=True)
class Value:
    """A resolved value, and where it came from.

    Attributes:
        value: The value; None where nobody wrote one and Modal decides.
        origin: The place.
        source: The place in words, such as "run spec, step" or "highest of steps: train".
    """

    value: Any
    origin: Origin
    source: str

    @classmethod
    def at(cls, value: Any, origin: Origin, source: str | None = None) -> Value:
        """A value from a place that needs no better words than its own."""
        return cls(value, origin, source or origin.label)


MERGED_FIELDS = frozenset({"volumes"})
"""Fields that hold entries by name: the places' entries join, the stronger place's win."""


def find(name: str, *places: Layers) -> Value | None:
    """The value of a field from the strongest place that writes it; None where none does."""
    strongest = Origin.DEFAULT
    found: SettingsLayer | None = None
    for one in places:
        for origin, written in one.items():
            if origin < strongest and written.get(name) is not None:
                strongest, found = origin, written
    if found is None:
        return None
    value = _joined(name, places) if name in MERGED_FIELDS else found.get(name)
    return Value(value, strongest, found.labels.get(name) or strongest.label)


def own(name: str, places: Layers) -> Value | None:
    """The value of a field that a step itself wrote, wherever it did."""
    return find(name, {origin: w for origin, w in places.items() if origin.of_a_step})


def _joined(name: str, places: Iterable[Layers]) -> dict[str, Any]:
    writers = [(origin, written) for one in places for origin, written in one.items()]
    joined: dict[str, Any] = {}
    for _, written in sorted(writers, key=lambda writer: -writer[0]):
        joined.update(written.get(name) or {})
    return joined


def flatten(pipeline: Layers, step: Layers | None = None) -> SettingsLayer:
    """What the pipeline or one step says, as if it were written in one place.

    The plan is made from this, and a stored deployment keeps it, so both say the same.

    A field that the step wrote takes the strongest value there is, the pipeline's included: the
    run spec's pipeline beats the step in code. What the step left open stays open. A count inside
    a GPU type ("A100:2") becomes a `gpu_count`.

    Raises:
        UsageError: A count inside a GPU type contradicts the `gpu_count` of the same place.
    """
    mine = pipeline if step is None else step
    every = (pipeline,) if step is None else (pipeline, step)
    settings: dict[str, Any] = {}
    resources: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for kind, flat in (("settings", settings), ("resources", resources)):
        for name in sorted({n for w in mine.values() for n in getattr(w, kind)} - _GPU_FIELDS):
            if find(name, mine) is not None:
                _put(flat, labels, name, find(name, *every))
    types, count = _gpu(mine)
    if step is not None:
        types, count = _stronger(types, count, *_gpu(pipeline))
    _put(settings, labels, "gpu", types)
    _put(resources, labels, "gpu_count", count)
    return SettingsLayer(settings, resources, labels=labels)


_GPU_FIELDS = {"gpu", "gpu_count"}


def _put(flat: dict[str, Any], labels: dict[str, str], name: str, value: Value | None) -> None:
    if value is not None:
        flat[name] = value.value
        labels[name] = value.source


def _gpu(places: Layers) -> tuple[Value | None, Value | None]:
    """The GPU types and their count, with a count inside the types taken out of them."""
    types, count = find("gpu", places), find("gpu_count", places)
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
    """A step's own GPU types and count, replaced by those of the pipeline that are stronger."""
    if count is not None and count.value == 0:
        # A CPU step stays one, whatever is written above it.
        return None, count
    asks = types or count
    if types is not None and over_types is not None and over_types.origin < types.origin:
        types = over_types
    if asks is not None and over_count is not None and over_count.origin < (count or asks).origin:
        count = over_count
    return types, count
