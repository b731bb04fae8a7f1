"""Keys inside a run spec's values that ZenML itself would drop without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from zenml.config import DockerSettings
from zenml.config.retry_config import StepRetryConfig
from zenml.model.model import Model

from modalrun.spec import RunSpec
from modalrun.yaml_source import KeyPath, nearest

_VALUES: tuple[tuple[KeyPath, type[BaseModel]], ...] = (
    (("retry",), StepRetryConfig),
    (("model",), Model),
    (("settings", "docker"), DockerSettings),
)


def check_nested(spec: RunSpec) -> None:
    """Check the retries, model and Docker settings of a run spec, of the pipeline and its steps.

    Raises:
        UsageError: One of them isn't a mapping, or has a key that doesn't exist.
    """
    for at, value, model in _nested(spec.run_configuration):
        name = ".".join(map(str, at))
        if not isinstance(value, Mapping):
            raise spec.error(
                at,
                f"'{name}' has to be a mapping (key: value), not {value!r}.",
                f"Its keys: {', '.join(sorted(model.model_fields))}.",
            )
        for key in value:
            if key not in model.model_fields:
                close = nearest(str(key), model.model_fields)
                raise spec.error(
                    (*at, key),
                    f"unknown key '{key}' under '{name}'.",
                    f"Did you mean '{close}'?"
                    if close
                    else f"Valid keys: {', '.join(sorted(model.model_fields))}.",
                )


def _nested(configuration: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any, type[BaseModel]]]:
    owners: list[tuple[KeyPath, Mapping[str, Any]]] = [((), configuration)]
    steps = configuration.get("steps") or {}
    owners += [(("steps", name), step) for name, step in steps.items()]
    for at, owner in owners:
        for path, model in _VALUES:
            value: Any = owner
            for part in path:
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                yield (*at, *path), value, model
