"""The ZenML orchestrator that stands for modalrun in a stack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ConfigDict, model_validator
from zenml.enums import ExecutionMode
from zenml.orchestrators import (
    BaseOrchestrator,
    BaseOrchestratorConfig,
    ContainerizedOrchestrator,
)
from zenml.utils.secret_utils import SecretField

from modalrun.driver import STEP
from modalrun.setting_fields import FIELD_NAMES, SettingFields
from modalrun.settings import ModalOrchestratorSettings

if TYPE_CHECKING:
    from zenml.config.base_settings import BaseSettings
    from zenml.config.build_configuration import BuildConfiguration
    from zenml.models import PipelineSnapshotBase

ORCHESTRATOR_RUN_ID = "MODALRUN_ORCHESTRATOR_RUN_ID"
"""The variable that carries ZenML's orchestrator run id into a sandbox."""

_TEXTS = frozenset(
    {"cloud", "modal_environment", "workspace", "app_name", "mode", "memory_limit", "prewarm"}
)


class ModalOrchestratorConfig(BaseOrchestratorConfig, SettingFields):
    """Configuration of the orchestrator component.

    Every setting can be given a default here. Of all places it is the weakest.

    Attributes:
        token_id: A Modal token's id; without one, Modal's own configuration counts.
        token_secret: Its secret. Both or neither.
    """

    model_config = ConfigDict(frozen=False, extra="forbid", hide_input_in_errors=True)

    token_id: str | None = SecretField(default=None)
    token_secret: str | None = SecretField(default=None)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, values: Any) -> Any:
        """`zenml orchestrator register --timeout=60 --gpu='[H100, A100]'` passes texts."""
        if not isinstance(values, dict):
            return values
        parsed = dict(values)
        for name in FIELD_NAMES - _TEXTS:
            text = parsed.get(name)
            listed = name in {"gpu", "region"} and not str(text).lstrip().startswith("[")
            if isinstance(text, str) and not listed:
                try:
                    parsed[name] = yaml.safe_load(text)
                except yaml.YAMLError:
                    continue
        return parsed

    @model_validator(mode="after")
    def _whole_token(self) -> ModalOrchestratorConfig:
        # Looking at the dict doesn't ask ZenML's secret store for what is referred to.
        given = [name for name in ("token_id", "token_secret") if self.__dict__.get(name)]
        if len(given) == 1:
            missing = "token_secret" if given[0] == "token_id" else "token_id"
            raise ValueError(f"'{given[0]}' is set without '{missing}'; set both or neither")
        return self

    def __repr_args__(self) -> Any:
        """Without the token, wherever the configuration is shown."""
        hidden = {"token_id", "token_secret"}
        return [(n, "***" if n in hidden and v else v) for n, v in super().__repr_args__()]

    @property
    def is_synchronous(self) -> bool:
        """Whether `submit` waits for the end of the run."""
        return self.synchronous is not False

    @property
    def supports_client_side_caching(self) -> bool:
        """The runner and the driver leave out what `submit` found in ZenML's cache."""
        return True

    @property
    def handles_step_retries(self) -> bool:
        """The runner and the driver try failed steps again: a termination is not a failure."""
        return True


class ModalOrchestrator(BaseOrchestrator):
    """Stands in a stack, in memory, while a pipeline is compiled for Modal and while it runs there.

    It gives ZenML the settings class to check `orchestrator` settings with, and says how steps
    behave inside a sandbox: every execution mode works, and hooks run once per run where all steps
    share one process, as with ZenML's own `local` orchestrator, or with each step.

    Attributes:
        wants_images: Whether ZenML is to build images for it, as for ZenML's own orchestrators
            that run in containers. Only while `modalrun.zenml_api.registry` asks it to.
    """

    wants_images = False

    def get_docker_builds(self, snapshot: PipelineSnapshotBase) -> list[BuildConfiguration]:
        """The images that ZenML builds: none, since Modal does, unless `wants_images`."""
        if not self.wants_images:
            return []
        # One for the pipeline and one for each step with Docker settings of its own.
        builds: list[BuildConfiguration] = ContainerizedOrchestrator.get_docker_builds(
            self,  # type: ignore[arg-type]
            snapshot,
        )
        return builds

    def should_build_pipeline_image(self, snapshot: PipelineSnapshotBase) -> bool:
        """True: the run sandbox has the pipeline's image, also where every step has its own."""
        return True

    @property
    def settings_class(self) -> type[BaseSettings]:
        """The class that ZenML validates `orchestrator` settings with."""
        return ModalOrchestratorSettings

    def get_orchestrator_run_id(self) -> str:
        """The id that ties the steps in a sandbox to their run.

        Raises:
            RuntimeError: Not inside a sandbox of a run.
        """
        try:
            return os.environ[ORCHESTRATOR_RUN_ID]
        except KeyError:
            raise RuntimeError(f"{ORCHESTRATOR_RUN_ID} is not set.") from None

    @property
    def run_init_cleanup_at_step_level(self) -> bool:
        """Whether ZenML calls the init and cleanup hooks with each step.

        It does in a step sandbox. Where all steps share a process the runner calls them, once.
        """
        return STEP in os.environ

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        """All of ZenML's failure modes."""
        return list(ExecutionMode)
