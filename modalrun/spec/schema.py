"""List the keys of a run spec: modalrun's own, and ZenML's with the types of their values.

ZenML's are listed so that a mistake is reported without importing ZenML. Tests compare them with
the installed ZenML; their types refuse only what ZenML refuses.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from modalrun.run.run_plan import Target
from modalrun.spec.fields import Name, ZenMLDuration

ZENML_VERSION = "0.98.0"
"""The ZenML that the lists below are from. A newer one may have more keys."""

Named = str | dict[str, Any]
"""A name, or the object itself: a source, a tag, a cache policy, a group."""


def _no_collection(value: Any) -> Any:
    """ZenML makes a text of a variable's value with `str` (`config/compiler.py:803`, 0.98.0)."""
    if isinstance(value, dict | list):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


Variables = dict[str, Annotated[Any, AfterValidator(_no_collection)]]


class _Keys(BaseModel):
    """Check values only: other keys are checked separately, and ZenML checks every value."""

    # Few specs have all of them: build a validator only when it is used.
    model_config = ConfigDict(defer_build=True, protected_namespaces=())


class RetryKeys(_Keys):
    """`zenml.config.retry_config.StepRetryConfig`."""

    max_retries: Annotated[int, Field(gt=0)] = 1
    delay: Annotated[ZenMLDuration, Field(ge=0)] = 0
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
    environment: Variables = {}
    runtime_environment: Variables = {}
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
    """`zenml.config.pipeline_run_configuration.PipelineRunConfiguration`, in part."""

    run_name: str | None = None
    enable_pipeline_logs: bool | None = None
    enable_heartbeat: bool | None = None
    environment: Variables | None = None
    tags: list[Named] | None = None
    init_hook_source: Named | None = None
    init_hook_kwargs: dict[str, Any] | None = None
    cleanup_hook_source: Named | None = None
    pause_hook_source: Named | None = None
    resume_hook_source: Named | None = None
    execution_mode: Literal["fail_fast", "stop_on_failure", "continue_on_failure"] | None = None


class StepKeys(_CommonKeys):
    """`zenml.config.step_configurations.StepConfigurationUpdate`, in part."""

    step_operator: bool | str | None = None
    experiment_tracker: bool | str | None = None
    environment: dict[str, str] | None = None
    runtime: Literal["inline", "isolated"] | None = None
    heartbeat_healthy_threshold: Annotated[int, Field(ge=10, le=60)] = 30
    group: Named | None = None
    outputs: dict[str, Any] = {}


INHERITED_KEYS = frozenset(_CommonKeys.model_fields) - {"parameters"}
"""The keys of a run configuration that hold for each step that has none of its own."""

HOOK_KEYS = {
    f"on_{event}": f"{event}_hook_source"
    for event in ("init", "cleanup", "failure", "success", "start", "end", "pause", "resume")
} | {"on_init_kwargs": "init_hook_kwargs"}
"""Other names of the keys of hooks: arguments of `Pipeline.configure`, which ZenML takes from a
file, too (`pipelines/pipeline_definition.py:1805`, 0.98.0)."""

RUN_KEYS = frozenset(RunKeys.model_fields) | {"schedule", "build", "steps", "settings"}
"""The keys of ZenML's run configuration."""

STEP_KEYS = frozenset(StepKeys.model_fields) | {"settings"}
"""The keys of a step in it."""

COMPILED_KEYS = frozenset({"settings", "steps", "run_name", "enable_cache"})
"""The keys of ZenML's run configuration that can be set on a compiled deployment."""

GENERAL_SETTINGS = frozenset({"resources", "docker", "deployment"})
COMPONENTS = frozenset(
    {
        *("orchestrator", "artifact_store", "container_registry", "step_operator", "sandbox"),
        *("experiment_tracker", "image_builder", "deployer", "model_deployer", "model_registry"),
        *("feature_store", "data_validator", "alerter", "annotator", "log_store"),
    }
)
"""Kinds of stack components; a settings key is 'kind', 'kind.flavor' or 'kind:name'."""

REFUSED = {
    "schedule": "Scheduled pipelines are not supported. Let a scheduler (cron, CI) call submit.",
    "build": "ZenML's own image builds are not used; the image is made from 'settings: docker'.",
}


class OurKeys(BaseModel):
    """List the keys that modalrun adds to ZenML's run configuration.

    Attributes:
        pipeline: The pipeline as `module.function`, below the source root. This or `deployment`.
        deployment: A compiled pipeline: a file that `modalrun compile` wrote, relative to the spec,
            or a ZenML snapshot's id or name.
        stack: The ZenML stack to compile for, by name or id; by default the active one.
        target: Where sandboxes run: Modal's cloud, or the local Modal server.
        source_root: The folder that the pipeline is imported from and that the sandbox gets,
            relative to the spec. By default the nearest folder with a `.zen`, from the spec's own
            upwards, else the spec's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Name | None = None
    deployment: Name | None = None
    stack: Name | None = None
    target: Target = "modal"
    source_root: Name | None = None
