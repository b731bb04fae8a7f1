"""The configuration of the orchestrator component that stands for modalrun in a stack."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import ConfigDict, model_validator
from zenml.orchestrators import BaseOrchestratorConfig
from zenml.utils.secret_utils import SecretField

from modalrun.spec.fields import FIELD_NAMES, SettingFields

FLAVOR = "modalrun"
"""The name of the flavor."""

_TEXTS = frozenset(
    {"cloud", "modal_environment", "workspace", "app_name", "mode", "memory_limit", "prewarm"}
)


class ModalOrchestratorConfig(BaseOrchestratorConfig, SettingFields):
    """Configuration of the orchestrator component.

    Every setting can be given a default here. Of all places it is the weakest.

    Attributes:
        token_id: A Modal token's id; without one, Modal's own configuration counts.
        token_secret: Its secret. Both or neither.
        target: Where the runs of its stack go: Modal's cloud, or the local Modal server.
    """

    model_config = ConfigDict(frozen=False, extra="forbid", hide_input_in_errors=True)

    token_id: str | None = SecretField(default=None)
    token_secret: str | None = SecretField(default=None)
    target: Literal["modal", "local"] = "modal"

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
    def is_remote(self) -> bool:
        """Whether its sandboxes are elsewhere: ZenML then wants a server that they can reach."""
        return self.target == "modal"

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
