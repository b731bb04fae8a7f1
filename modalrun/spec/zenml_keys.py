"""The types of ZenML's own keys, so that a wrong value is reported without importing ZenML.

They refuse only what ZenML 0.98.0 refuses (a test compares them), and pass over keys that they
don't know: ZenML has the last word on every value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from modalrun.spec.mistakes import Mistakes
from modalrun.spec.validation import check, refuse_unknown
from modalrun.spec.yaml_source import KeyPath, YamlSource

Named = str | dict[str, Any]
"""What has a name, or is written out: a source, a tag, a cache policy, a group."""


class _Keys(BaseModel):
    # Few specs have all of them: what isn't there needs no validator.
    model_config = ConfigDict(defer_build=True, protected_namespaces=())


class RetryKeys(_Keys):
    """`zenml.config.retry_config.StepRetryConfig`."""

    max_retries: Annotated[int, Field(gt=0)] = 1
    delay: Annotated[int, Field(ge=0)] = 0
    backoff: Annotated[int, Field(ge=0)] = 0


class ModelKeys(_Keys):
    """`zenml.model.model.Model`."""

    name: str
    license: str | None = None
    description: str | None = None
    audience: str | None = None
    use_cases: str | None = None
    limitations: str | None = None
    trade_offs: str | None = None
    ethics: str | None = None
    tags: list[str] | None = None
    version: int | str | None = None
    save_models_to_registry: bool = True
    model_version_id: UUID | None = None
    suppress_class_validation_warnings: Any = None


class DockerKeys(_Keys):
    """`zenml.config.docker_settings.DockerSettings`."""

    parent_image: str | None = None
    image_tag: str | None = None
    dockerfile: str | None = None
    build_context_root: str | None = None
    parent_image_build_config: dict[str, Any] | None = None
    skip_build: bool = False
    prevent_build_reuse: bool = False
    target_repository: str | None = None
    python_package_installer: Literal["pip", "uv"] = "uv"
    python_package_installer_cache_mount: str | None = None
    python_package_installer_args: dict[str, Any] = {}
    disable_automatic_requirements_detection: bool = True
    replicate_local_python_environment: (
        list[str] | Literal["pip_freeze", "uv_freeze", "poetry_export"] | bool | None
    ) = None
    pyproject_path: str | None = None
    pyproject_export_command: list[str] | None = None
    requirements: str | list[str] | None = None
    required_integrations: list[str] = []
    install_stack_requirements: bool = True
    install_deployment_requirements: bool = True
    local_project_install_command: str | None = None
    apt_packages: list[str] = []
    environment: dict[str, Any] = {}
    runtime_environment: dict[str, Any] = {}
    user: str | None = None
    build_config: dict[str, Any] | None = None
    allow_including_files_in_images: bool = True
    allow_download_from_code_repository: bool = True
    allow_download_from_artifact_store: bool = True
    build_options: dict[str, Any] = {}
    dockerignore: str | None = None
    copy_files: bool = True
    copy_global_config: bool = True
    source_files: str | None = None
    required_hub_plugins: list[str] = []


class _CommonKeys(_Keys):
    enable_cache: bool | None = None
    enable_artifact_metadata: bool | None = None
    enable_artifact_visualization: bool | None = None
    enable_step_logs: bool | None = None
    secrets: list[str] | None = None
    extra: dict[str, Any] | None = None
    model: ModelKeys | None = None
    parameters: dict[str, Any] | None = None
    retry: RetryKeys | None = None
    failure_hook_source: Named | None = None
    success_hook_source: Named | None = None
    start_hook_source: Named | None = None
    end_hook_source: Named | None = None
    substitutions: dict[str, str] | None = None
    cache_policy: Named | None = None


class RunKeys(_CommonKeys):
    """`zenml.config.pipeline_run_configuration.PipelineRunConfiguration`, ZenML's part."""

    run_name: str | None = None
    enable_pipeline_logs: bool | None = None
    enable_heartbeat: bool | None = None
    environment: dict[str, Any] | None = None
    tags: list[Named] | None = None
    init_hook_source: Named | None = None
    init_hook_kwargs: dict[str, Any] | None = None
    cleanup_hook_source: Named | None = None
    pause_hook_source: Named | None = None
    resume_hook_source: Named | None = None
    execution_mode: Literal["fail_fast", "stop_on_failure", "continue_on_failure"] | None = None


class StepKeys(_CommonKeys):
    """`zenml.config.step_configurations.StepConfigurationUpdate`, ZenML's part."""

    step_operator: bool | str | None = None
    experiment_tracker: bool | str | None = None
    environment: dict[str, str] | None = None
    runtime: Literal["inline", "isolated"] | None = None
    heartbeat_healthy_threshold: Annotated[int, Field(ge=10, le=60)] = 30
    group: Named | None = None
    outputs: dict[str, Any] = {}


_HELD: tuple[tuple[KeyPath, type[BaseModel]], ...] = (
    (("retry",), RetryKeys),
    (("model",), ModelKeys),
    (("settings", "docker"), DockerKeys),
)
"""Values whose keys are all known; a misspelt one ZenML would drop without a word."""


def check_keys(source: YamlSource, configuration: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Check the values of ZenML's keys, of the pipeline and its steps.

    Args:
        source: The run spec's file, or the command line.
        configuration: Its keys that are ZenML's, without what is said about sandboxes.
        mistakes: Gets what is wrong.
    """
    for at, owner in _owners(configuration):
        with mistakes.collecting():
            check(source, at, StepKeys if at else RunKeys, owner)
        for path, model in _HELD:
            value: Any = owner
            for part in path:
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is None:
                continue
            if isinstance(value, Mapping):
                with mistakes.collecting():
                    refuse_unknown(source, (*at, *path), value, model.model_fields)
            if model is DockerKeys:
                # The others are checked with the keys that hold them.
                with mistakes.collecting():
                    check(source, (*at, *path), model, value)


def _owners(configuration: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    yield (), configuration
    for name, step in (configuration.get("steps") or {}).items():
        yield ("steps", name), step
