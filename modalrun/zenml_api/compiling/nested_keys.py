"""Keys inside a run spec's values that ZenML itself would drop without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from zenml.config import DockerSettings
from zenml.config.retry_config import StepRetryConfig
from zenml.model.model import Model

from modalrun.spec.messages import path_name
from modalrun.spec.mistakes import Mistakes
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.yaml_source import KeyPath
from modalrun.util.nearest import nearest

_VALUES: tuple[tuple[KeyPath, type[BaseModel]], ...] = (
    (("retry",), StepRetryConfig),
    (("model",), Model),
    (("settings", "docker"), DockerSettings),
)


def check_nested(spec: RunSpec) -> None:
    """Check the retries, model and Docker settings of a run spec, of the pipeline and its steps.

    Raises:
        UsageError: Keys in them don't exist in the ZenML that is installed.
    """
    mistakes = Mistakes()
    for at, value, model in _nested(spec.run_configuration):
        # Another type was refused when the spec was read.
        for key in value if isinstance(value, Mapping) else ():
            if key not in model.model_fields:
                close = nearest(str(key), model.model_fields)
                problem = f"unknown key '{key}' under '{path_name(at)}'."
                valid = f"Valid keys: {', '.join(sorted(model.model_fields))}."
                hint = f"Did you mean '{close}'?" if close else valid
                mistakes.found.append(spec.error((*at, key), problem, hint))
    mistakes.raise_all()


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
