"""Hold a compiled pipeline as plain values, without ZenML's classes. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.environment import check_environment, gives_credentials, of_process
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.snapshot_schema import check, check_settings, check_snapshot
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, flatten
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.spec_record import SpecRecord

MAX_STEP_NAME = 255
"""Characters (`STR_FIELD_MAX_LENGTH`, `zenml/constants.py`, 0.98.0)."""

_STEP_PARTS = ("config", "step_config_overrides")

_IN_SOURCE_ROOT = {"user", "code_repository"}
"""Types of a source (`SourceType`) whose module is relative to the source root."""


@dataclass(frozen=True)
class CompiledStep:
    """Hold one step of a deployment.

    Attributes:
        planned: Its name, upstream steps, retries and caching; its sandbox is not planned yet.
        layers: The settings of the step itself, by place.
        docker: Its `DockerSettings` fields, the pipeline's merged in; None if it has no others.
        has_credentials: Whether ZenML gives it variables for the login to an artifact store.
        process_variables: Those of its variables that its process must start with.
        runtime: ZenML's `StepRuntime`, for a dynamic pipeline; None where its settings decide.
    """

    planned: PlannedStep
    layers: Layers = field(default_factory=dict)
    docker: Mapping[str, Any] | None = None
    has_credentials: bool = False
    process_variables: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None

    @property
    def name(self) -> str:
        """The step's invocation id, unique in the pipeline."""
        return self.planned.name


@dataclass(frozen=True)
class Deployment:
    """Hold a compiled pipeline.

    Attributes:
        steps: Its steps, parents before children.
        layers, docker: The settings and the `DockerSettings` fields of the pipeline.
        notes: Remarks for the user about how it was read.
        dynamic: Whether its function decides while it runs which steps there are; `steps` are then
            those that it has announced.
        failure_mode: The value of ZenML's `ExecutionMode`.
        modules: The modules of the source root that a sandbox imports its steps from.
        has_credentials: Whether ZenML gives all steps variables for the login to an artifact store.
        process_variables: Those of the pipeline's variables that a process must start with.
    """

    pipeline: str
    steps: tuple[CompiledStep, ...]
    layers: Layers = field(default_factory=dict)
    docker: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dynamic: bool = False
    failure_mode: str = "continue_on_failure"
    modules: tuple[str, ...] = ()
    has_credentials: bool = False
    process_variables: Mapping[str, str] = field(default_factory=dict)

    def with_caching(self, enabled: bool) -> Deployment:
        """Return the deployment with ZenML's cache on or off for every step."""
        steps = (replace(s, planned=replace(s.planned, caches=enabled)) for s in self.steps)
        return replace(self, steps=tuple(steps))

    def with_layers(self, pipeline: Layers, steps: Mapping[str, Layers]) -> Deployment:
        """Return the deployment with further settings, of a run spec or a command line.

        Their Docker settings override those of the deployment, field by field.
        """

        def complete(step: CompiledStep) -> CompiledStep:
            own = steps.get(step.name, {})
            docker = step.docker
            if docker is None and any(layer.docker for layer in own.values()):
                docker = self.docker
            if docker is not None:
                docker = _docker(docker, pipeline, own)
            return replace(step, layers={**step.layers, **own}, docker=docker)

        return replace(
            self,
            layers={**self.layers, **pipeline},
            docker=_docker(self.docker, pipeline),
            steps=tuple(complete(step) for step in self.steps),
        )


def _docker(base: Mapping[str, Any], *layers: Layers) -> dict[str, Any]:
    docker = dict(base)
    for one in layers:
        for _, layer in sorted(one.items(), reverse=True):
            if layer.docker:
                # The gathered packages are those of the settings below.
                docker.pop(GATHERED, None)
            docker.update(layer.docker)
    return docker


def merged_orchestrator_settings(
    settings: Mapping[str, Any], ignored: Collection[str] = ()
) -> dict[str, Any]:
    """Return the orchestrator settings of all flavors in ZenML's settings, as one.

    Args:
        settings: ZenML's settings by key, such as "orchestrator:modal".
        ignored: Keys to leave out, those of another flavor.
    """
    merged: dict[str, Any] = {}
    for key, values in settings.items():
        if re.split("[:.]", key)[0] == "orchestrator" and key not in ignored:
            merged.update(check(dict[str, Any], values))
    return merged


def orchestrator_settings(snapshot: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the keys of a snapshot's orchestrator settings, each with the names set below it."""
    found: dict[str, set[str]] = {}
    for settings in (
        snapshot["pipeline_configuration"]["settings"],
        *(s["step_config_overrides"]["settings"] for s in snapshot["step_configurations"].values()),
    ):
        for key, values in settings.items():
            if key.startswith("orchestrator"):
                found.setdefault(key, set()).update(values)
    return found


def read_snapshot(
    snapshot: Mapping[str, Any],
    *,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    ignored_settings: Collection[str] = (),
) -> Deployment:
    """Read a compiled ZenML snapshot, as the plain values of its JSON.

    ZenML keeps of all settings only the fields that were set.

    Args:
        snapshot: `PipelineSnapshotBase` as JSON.
        labels: The origins of the settings of the pipeline ("") and of the steps, by field.
        ignored_settings: As in `merged_orchestrator_settings`.

    Raises:
        UsageError: It is not the JSON of a snapshot, ZenML can't record a step's name, or no
            process can get its environment.
    """
    check_snapshot(snapshot)

    def layer(settings: Mapping[str, Any], owner: str) -> SettingsLayer:
        return SettingsLayer(
            check_settings(merged_orchestrator_settings(settings, ignored_settings)),
            settings.get("resources") or {},
            labels=(labels or {}).get(owner, {}),
        )

    pipeline = snapshot["pipeline_configuration"]
    variables = pipeline.get("environment") or {}
    check_environment("the pipeline", variables)
    docker = pipeline["settings"].get("docker") or {}

    def read_step(name: str, step: Mapping[str, Any]) -> CompiledStep:
        if len(name) > MAX_STEP_NAME:
            raise UsageError(
                f"ZenML takes at most {MAX_STEP_NAME} characters as the name of a step;"
                f" '{name[:20]}...' has {len(name)}."
            )
        config = step["config"]
        own = {**variables, **(config.get("environment") or {})}
        check_environment(f"step '{name}'", own)
        step_docker = config["settings"].get("docker") or {}
        retry = config.get("retry") or {}
        # As `is_setting_enabled` (`zenml/orchestrators/utils.py`, 0.98.0).
        caching = (config.get("enable_cache"), pipeline.get("enable_cache"), True)
        return CompiledStep(
            PlannedStep(
                name=name,
                upstream=tuple(step["spec"]["upstream_steps"]),
                retries=retry.get("max_retries", 0),
                delay=retry.get("delay", 0),
                backoff=retry.get("backoff", 1),
                caches=next(enabled for enabled in caching if enabled is not None),
            ),
            layers={Origin.CODE_STEP: layer(step["step_config_overrides"]["settings"], name)},
            docker=step_docker if step_docker != docker else None,
            has_credentials=_has_credentials(config),
            process_variables=of_process(own),
            runtime=config.get("runtime"),
        )

    sources = [step["spec"].get("source") for step in snapshot["step_configurations"].values()]
    if snapshot.get("is_dynamic"):
        sources.append((snapshot.get("pipeline_spec") or {}).get("source"))
    modules = {one["module"]: None for one in sources if one and one["type"] in _IN_SOURCE_ROOT}
    return Deployment(
        pipeline=pipeline["name"],
        steps=tuple(read_step(*item) for item in snapshot["step_configurations"].items()),
        layers={Origin.CODE_PIPELINE: layer(pipeline["settings"], "")},
        docker=docker,
        dynamic=bool(snapshot.get("is_dynamic")),
        failure_mode=pipeline["execution_mode"],
        modules=tuple(modules),
        has_credentials=_has_credentials(pipeline),
        process_variables=of_process(variables),
    )


def _has_credentials(config: Mapping[str, Any]) -> bool:
    """Whether a configuration has ZenML secrets as variables, or variables with credentials."""
    return bool(config.get("secrets")) or gives_credentials(config.get("environment") or ())


def with_run_options(snapshot: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a snapshot with the name and caching of a run configuration."""
    changed = dict(snapshot)
    name, cache = options.get("run_name"), options.get("enable_cache")
    if name is not None:
        changed["run_name_template"] = str(name)
    return changed if cache is None else with_caching(changed, enabled=bool(cache))


def with_caching(snapshot: Mapping[str, Any], *, enabled: bool) -> dict[str, Any]:
    """Return a snapshot with ZenML's cache on or off for every step."""
    flag = {"enable_cache": enabled}
    return {
        **snapshot,
        "pipeline_configuration": {**snapshot["pipeline_configuration"], **flag},
        "step_configurations": {
            # ZenML stores only the step's own part, and merges the pipeline's into it again.
            step: {**values, **{key: {**values[key], **flag} for key in _STEP_PARTS}}
            for step, values in snapshot["step_configurations"].items()
        },
    }


def with_spec(
    snapshot: Mapping[str, Any], deployment: Deployment, orchestrator: str, spec: RunSpec
) -> dict[str, Any]:
    """Return a snapshot with the settings of a run spec, and the keys of that in its record.

    Args:
        deployment: The deployment, with the settings of the spec.
        orchestrator: ZenML's key of the settings of the stack's orchestrator.
    """
    changed = with_settings(snapshot, deployment, orchestrator)
    environment = changed.get("client_environment") or {}
    if (record := SpecRecord.of(environment)) is not None:
        record = record.with_keys(spec.source.data, spec.command_line)
        changed["client_environment"] = {**environment, **record.to_environment()}
    return changed


def with_settings(
    snapshot: Mapping[str, Any], deployment: Deployment, orchestrator: str
) -> dict[str, Any]:
    """Return a snapshot with the settings of a deployment, so that ZenML stores what is run.

    The component's defaults are left out: they are read again from the component.

    Args:
        deployment: The deployment, with further settings.
        orchestrator: ZenML's key of the settings of the stack's orchestrator.
    """
    layers = dict(deployment.layers)
    layers.pop(Origin.COMPONENT, None)

    def changed(
        settings: Mapping[str, Any], layer: SettingsLayer, docker: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        ours = {orchestrator: layer.settings, "resources": layer.resources, "docker": docker}
        kept = {
            key: value
            for key, value in settings.items()
            if key not in ours and re.split("[:.]", key)[0] != "orchestrator"
        }
        return {**kept, **{key: dict(values) for key, values in ours.items() if values}}

    def without_gathered(docker: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in docker.items() if name != GATHERED}

    pipeline = snapshot["pipeline_configuration"]
    own_docker = without_gathered(deployment.docker)
    steps = {}
    for step in deployment.steps:
        stored = snapshot["step_configurations"][step.name]
        layer = flatten(layers, step.layers)
        docker = own_docker if step.docker is None else without_gathered(step.docker)
        overrides, config = stored["step_config_overrides"], stored["config"]
        own = docker if step.docker is not None else None
        steps[step.name] = {
            **stored,
            "config": {**config, "settings": changed(config["settings"], layer, docker)},
            "step_config_overrides": {
                **overrides,
                "settings": changed(overrides["settings"], layer, own),
            },
        }
    return {
        **snapshot,
        "pipeline_configuration": {
            **pipeline,
            "settings": changed(pipeline["settings"], flatten(layers), own_docker),
        },
        "step_configurations": steps,
    }
