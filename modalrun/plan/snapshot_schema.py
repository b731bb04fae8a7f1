"""List what modalrun reads of a compiled ZenML snapshot, with the types of the values. Pure.

A snapshot comes from a file or from ZenML's server, where others can write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modalrun.errors import UsageError
from modalrun.run.values import adapter
from modalrun.spec.fields import FIELD_NAMES, ResourceFields, SettingFields
from modalrun.spec.messages import path_name
from modalrun.spec.schema import DockerKeys
from modalrun.spec.validation import validation_message

Variables = dict[str, str | int | float | bool | None]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    """Check a part; ZenML has more fields."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)


class BuildConfig(_Part):
    """`zenml.config.docker_settings.DockerBuildConfig`."""

    build_options: dict[str, Any] | None = None
    dockerignore: str | None = None


class PackageGroup(_Part):
    """Packages that ZenML gathered from one origin."""

    origin: str
    lines: list[str]


class GatheredPackages(_Part):
    """What `zenml_api.compiling.requirements` adds to the Docker settings."""

    packages: list[PackageGroup]
    apt: list[str]


class Docker(DockerKeys):
    """Docker settings, with the packages that were gathered for them."""

    build_config: BuildConfig | None = None  # type: ignore[assignment]  # it says more
    parent_image_build_config: BuildConfig | None = None  # type: ignore[assignment]
    environment: Variables = Field(default_factory=dict)
    runtime_environment: Variables = Field(default_factory=dict)
    gathered_requirements: GatheredPackages | None = None


class Settings(_Part):
    """`settings:` of a pipeline or step; those of the orchestrator are checked beside it."""

    resources: ResourceFields | None = None
    docker: Docker | None = None


class Retry(_Part):
    """`zenml.config.retry_config.StepRetryConfig`."""

    max_retries: Annotated[int, Field(ge=0)] = 0
    delay: Seconds = 0
    backoff: Seconds = 1


class StepConfiguration(_Part):
    """`config` of a step."""

    settings: Settings
    environment: Variables | None = None
    secrets: list[str] | None = None
    enable_cache: bool | None = None
    retry: Retry | None = None
    runtime: str | None = None


class Source(_Part):
    """`zenml.config.source.Source`."""

    module: str
    type: str


class StepSpec(_Part):
    """`spec` of a step."""

    upstream_steps: list[str]
    source: Source | None = None


class StepOverrides(_Part):
    """`step_config_overrides` of a step."""

    settings: Settings


class Step(_Part):
    """`zenml.config.step_configurations.Step`."""

    spec: StepSpec
    config: StepConfiguration
    step_config_overrides: StepOverrides


class PipelineConfiguration(_Part):
    """`zenml.config.pipeline_configurations.PipelineConfiguration`."""

    name: Annotated[str, Field(min_length=1)]
    execution_mode: Literal["fail_fast", "stop_on_failure", "continue_on_failure"]
    settings: Settings
    environment: Variables | None = None
    secrets: list[str] | None = None
    enable_cache: bool | None = None
    substitutions: dict[str, str] | None = None


class PipelineSpec(_Part):
    """`zenml.config.pipeline_spec.PipelineSpec`."""

    source: Source | None = None


class Snapshot(_Part):
    """`zenml.models.PipelineSnapshotBase`."""

    pipeline_configuration: PipelineConfiguration
    step_configurations: dict[str, Step]
    is_dynamic: bool | None = None
    pipeline_spec: PipelineSpec | None = None


def check_snapshot(snapshot: Any) -> None:
    """Check the types of what is read of a snapshot, and that its steps are in their order.

    Raises:
        UsageError: A value is missing or wrong.
    """
    check(Snapshot, snapshot)
    if snapshot.get("is_dynamic"):
        # It says while it runs what waits for what.
        return
    known: set[str] = set()
    for name, step in snapshot["step_configurations"].items():
        missing = [upstream for upstream in step["spec"]["upstream_steps"] if upstream not in known]
        if missing:
            raise _wrong(f"the step '{name}' comes before '{missing[0]}', which it waits for.")
        known.add(name)


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the orchestrator settings of a pipeline or step; return ours, as plain values.

    Raises:
        UsageError: One is wrong.
    """
    ours = {name: settings[name] for name in FIELD_NAMES & settings.keys()}
    checked: SettingFields = check(SettingFields, ours)
    return checked.values()


def check(kind: type[Any], value: Any) -> Any:
    """Check a value against a model or dataclass, and return it as such.

    Raises:
        UsageError: It does not fit.
    """
    try:
        return adapter(kind).validate_python(value)
    except ValidationError as error:
        where, problem = validation_message(error, value)
        raise _wrong(f"'{path_name(where)}'{problem}") from None


def _wrong(problem: str) -> UsageError:
    return UsageError(f"The deployment is damaged: {problem}", hint="Compile the pipeline again.")
