"""The keys of a run spec. Those that are ZenML's are listed here, so that a misspelt key is
reported without importing ZenML; a test compares them with the installed ZenML."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from modalrun.run.run_plan import Target
from modalrun.spec.fields import ImageSetting, Name

RUN_KEYS = frozenset(
    {
        "run_name",
        "enable_cache",
        "enable_artifact_metadata",
        "enable_artifact_visualization",
        "enable_step_logs",
        "enable_pipeline_logs",
        "enable_heartbeat",
        "schedule",
        "build",
        "steps",
        "settings",
        "environment",
        "secrets",
        "tags",
        "extra",
        "model",
        "parameters",
        "retry",
        "init_hook_source",
        "init_hook_kwargs",
        "cleanup_hook_source",
        "failure_hook_source",
        "success_hook_source",
        "start_hook_source",
        "end_hook_source",
        "pause_hook_source",
        "resume_hook_source",
        "substitutions",
        "cache_policy",
        "execution_mode",
    }
)
"""The keys of `zenml.config.pipeline_run_configuration.PipelineRunConfiguration`, 0.98.0."""

STEP_KEYS = frozenset(
    {
        "enable_cache",
        "enable_artifact_metadata",
        "enable_artifact_visualization",
        "enable_step_logs",
        "step_operator",
        "experiment_tracker",
        "parameters",
        "settings",
        "environment",
        "secrets",
        "extra",
        "failure_hook_source",
        "success_hook_source",
        "start_hook_source",
        "end_hook_source",
        "model",
        "retry",
        "substitutions",
        "cache_policy",
        "runtime",
        "heartbeat_healthy_threshold",
        "group",
        "outputs",
    }
)
"""The keys of `zenml.config.step_configurations.StepConfigurationUpdate`, 0.98.0."""

COMPILED_KEYS = frozenset({"settings", "steps", "run_name", "enable_cache"})
"""The keys of a run configuration that can be set on a compiled deployment."""

GENERAL_SETTINGS = frozenset({"resources", "docker", "deployment"})
COMPONENTS = frozenset(
    {
        "orchestrator",
        "artifact_store",
        "container_registry",
        "step_operator",
        "experiment_tracker",
        "sandbox",
        "image_builder",
        "deployer",
        "model_deployer",
        "model_registry",
        "feature_store",
        "data_validator",
        "alerter",
        "annotator",
        "log_store",
    }
)
"""Kinds of stack components; settings are for 'kind', 'kind.flavor' or 'kind:name'."""

REFUSED = {
    "schedule": "Scheduled pipelines are not supported. Let a scheduler (cron, CI) call submit.",
    "build": "ZenML's own image builds are not used; the image is made from 'settings: docker'.",
}


class ModalSection(BaseModel):
    """The key `modal` of a run spec: a shorter way to write four settings.

    Attributes:
        environment: As `settings.orchestrator.modal_environment`.
        workspace: As `settings.orchestrator.workspace`.
        secrets: As `settings.orchestrator.secrets`.
        volumes: As `settings.orchestrator.volumes`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: Name | None = None
    workspace: Name | None = None
    secrets: list[Name] | None = None
    volumes: dict[Name, Name] | None = None


class OurKeys(BaseModel):
    """The keys that modalrun adds to ZenML's run configuration.

    Attributes:
        pipeline: The pipeline as `module.function`, below the source root. This or `deployment`.
        deployment: A compiled pipeline: a file that `modalrun compile` wrote, relative to the spec,
            or a ZenML snapshot's id or name.
        stack: The ZenML stack to compile for, by name or id; the active one without it.
        target: Where sandboxes run: Modal's cloud, or the local Modal server.
        source_root: The folder that the pipeline is imported from and that the sandbox gets,
            relative to the spec. Without it the nearest folder with a `.zen`, from the spec's own
            upwards, else the spec's own.
        modal: A shorter way to write settings, see below.
        image: As `settings.orchestrator.image`: `{name: ...}` or `{source: registry}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Annotated[StrictStr, Field(min_length=1)] | None = None
    deployment: Name | None = None
    stack: Name | None = None
    target: Target = "modal"
    source_root: Name | None = None
    modal: ModalSection = ModalSection()
    image: ImageSetting | None = None
