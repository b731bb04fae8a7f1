"""The compiled pipeline as modalrun sees it: plain values, no ZenML classes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepView:
    """One step of a deployment.

    Attributes:
        name: The step's invocation id, unique in the pipeline.
        upstream: The names of the steps that it waits for.
        own_settings: Orchestrator settings that the step itself wrote.
        own_resources: `ResourceSettings` fields that the step itself wrote.
        own_docker: `DockerSettings` fields that the step itself wrote.
    """

    name: str
    upstream: tuple[str, ...] = ()
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    own_resources: Mapping[str, Any] = field(default_factory=dict)
    own_docker: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """A compiled pipeline.

    Attributes:
        pipeline: The pipeline's name.
        steps: Its steps, parents before children.
        settings: Orchestrator settings of the pipeline.
        resources: `ResourceSettings` fields of the pipeline.
        docker: `DockerSettings` fields of the pipeline.
    """

    pipeline: str
    steps: tuple[StepView, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    docker: Mapping[str, Any] = field(default_factory=dict)
