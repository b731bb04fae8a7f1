"""The compiled pipeline as modalrun sees it: plain values, no ZenML classes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modalrun.plan.image_layers import GATHERED
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.precedence import Layers, Origin, SettingsLayer


@dataclass(frozen=True)
class StepView:
    """Hold one step of a deployment.

    Attributes:
        planned: Its name, upstream steps, retries and caching; its sandbox is not planned yet.
        written: The settings that are written about the step itself, by place.
        docker: Its `DockerSettings` fields, the pipeline's merged in; None where it has no others.
    """

    planned: PlannedStep
    written: Layers = field(default_factory=dict)
    docker: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The step's invocation id, unique in the pipeline."""
        return self.planned.name


@dataclass(frozen=True)
class Deployment:
    """A compiled pipeline.

    Attributes:
        pipeline: The pipeline's name.
        steps: Its steps, parents before children.
        written: What is written about the pipeline, by place.
        docker: `DockerSettings` fields of the pipeline.
        notes: Remarks for the user about how it was read.
        dynamic: Whether its function decides while it runs which steps there are; `steps` are then
            those that it has announced.
        failure_mode: The value of ZenML's `ExecutionMode`.
    """

    pipeline: str
    steps: tuple[StepView, ...]
    written: Layers = field(default_factory=dict)
    docker: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dynamic: bool = False
    failure_mode: str = "continue_on_failure"

    def with_caching(self, enabled: bool) -> Deployment:
        """Return the deployment with ZenML's cache on or off for every step."""
        steps = (replace(s, planned=replace(s.planned, caches=enabled)) for s in self.steps)
        return replace(self, steps=tuple(steps))

    def with_layers(self, pipeline: Layers, steps: Mapping[str, Layers]) -> Deployment:
        """The same deployment with more written about it: a run spec, a command line.

        Docker settings in these places override those of the deployment, field by field.
        """
        docker = _docker(self.docker, pipeline)
        return replace(
            self,
            written={**self.written, **pipeline},
            docker=docker,
            steps=tuple(
                replace(
                    step,
                    written={**step.written, **steps.get(step.name, {})},
                    docker=_step_docker(step, pipeline, steps.get(step.name, {})),
                )
                for step in self.steps
            ),
        )


def _docker(base: Mapping[str, Any], *places: Layers) -> dict[str, Any]:
    docker = dict(base)
    for one in places:
        for _, written in sorted(one.items(), reverse=True):
            if written.docker:
                # What was gathered for the settings below doesn't hold for these.
                docker.pop(GATHERED, None)
            docker.update(written.docker)
    return docker


def _step_docker(step: StepView, pipeline: Layers, own: Layers) -> Mapping[str, Any] | None:
    has_own = any(written.docker for written in own.values())
    if step.docker is None and not has_own:
        return None
    return _docker(step.docker or {}, pipeline, own)


def read_snapshot(
    snapshot: Mapping[str, Any],
    *,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    ignored_settings: Iterable[str] = (),
) -> Deployment:
    """Read a compiled ZenML snapshot, as the plain values of its JSON.

    ZenML keeps of all settings only the fields that were set.

    Args:
        snapshot: `PipelineSnapshotBase` as JSON.
        labels: Where the settings of the pipeline ("") and of the steps came from, by field.
        ignored_settings: Keys of orchestrator settings that are of another flavor.

    Raises:
        KeyError, TypeError, AttributeError: It is not the JSON of a snapshot.
    """
    labels = labels or {}
    ignored = set(ignored_settings)

    def written(settings: Mapping[str, Any], owner: str) -> SettingsLayer:
        merged: dict[str, Any] = {}
        for key, value in settings.items():
            if key.partition(":")[0].partition(".")[0] == "orchestrator" and key not in ignored:
                merged.update(value)
        return SettingsLayer(
            settings=merged,
            resources=dict(settings.get("resources") or {}),
            labels=labels.get(owner, {}),
        )

    configuration = snapshot["pipeline_configuration"]
    docker = dict(configuration["settings"].get("docker") or {})
    steps = []
    for name, step in snapshot["step_configurations"].items():
        own = step["step_config_overrides"]["settings"]
        merged_docker = dict(step["config"]["settings"].get("docker") or {})
        retry = step["config"].get("retry") or {}
        # As `is_setting_enabled` (`zenml/orchestrators/utils.py`, 0.98.0).
        caching = (step["config"].get("enable_cache"), configuration.get("enable_cache"), True)
        steps.append(
            StepView(
                PlannedStep(
                    name=name,
                    upstream=tuple(step["spec"]["upstream_steps"]),
                    retries=retry.get("max_retries", 0),
                    delay=retry.get("delay", 0),
                    backoff=retry.get("backoff", 1),
                    caches=next(enabled for enabled in caching if enabled is not None),
                ),
                written={Origin.CODE_STEP: written(own, name)},
                docker=merged_docker if merged_docker != docker else None,
            )
        )
    return Deployment(
        pipeline=configuration["name"],
        steps=tuple(steps),
        written={Origin.CODE_PIPELINE: written(configuration["settings"], "")},
        docker=docker,
        dynamic=bool(snapshot.get("is_dynamic")),
        failure_mode=configuration["execution_mode"],
    )
