"""Define the configuration of the orchestrator component that represents modalrun in a stack."""

from __future__ import annotations

import shlex
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, ValidationError, model_validator
from zenml.models import ComponentResponse
from zenml.orchestrators import BaseOrchestratorConfig
from zenml.utils.secret_utils import SecretField, is_secret_reference

from modalrun.errors import NotFoundError, UsageError
from modalrun.spec.fields import FIELD_NAMES, SettingFields
from modalrun.spec.messages import path_name
from modalrun.spec.precedence import SettingsLayer

FLAVOR = "modalrun"
"""The name of the flavor."""

OUR_FLAVORS = (FLAVOR, "modal")
"""Flavors of orchestrators whose component values are read as defaults."""

_TEXTS = frozenset({"cloud", "modal_environment", "workspace", "app_name", "mode", "memory_limit"})


class ModalOrchestratorConfig(BaseOrchestratorConfig, SettingFields):
    """Configuration of the orchestrator component.

    Every setting can have a default here; all other layers override it.

    Attributes:
        token_id: A Modal token's id; without one, Modal's own configuration is used.
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
        """Parse the strings of `zenml orchestrator register --timeout=60 --gpu='[H100, A100]'`."""
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
        # Attribute access would read a referenced secret from ZenML's secret store.
        given = [name for name in ("token_id", "token_secret") if self.__dict__.get(name)]
        if len(given) == 1:
            missing = "token_secret" if given[0] == "token_id" else "token_id"
            raise ValueError(f"'{given[0]}' is set without '{missing}'; set both or neither")
        return self

    def __repr_args__(self) -> Any:
        """Hide the token wherever the configuration is shown."""
        hidden = {"token_id", "token_secret"}
        return [(n, "***" if n in hidden and v else v) for n, v in super().__repr_args__()]

    @property
    def is_remote(self) -> bool:
        """Whether ZenML requires a server that sandboxes elsewhere can reach."""
        return self.target == "modal"

    @property
    def is_synchronous(self) -> bool:
        """Whether `submit` waits for the end of the run."""
        return self.synchronous is not False

    @property
    def supports_client_side_caching(self) -> bool:
        """Always true: runner and driver skip the steps that `submit` found in the cache."""
        return True

    @property
    def handles_step_retries(self) -> bool:
        """Always true: the runner and the driver retry; for them a termination is no failure."""
        return True


def component_config(component: ComponentResponse) -> ModalOrchestratorConfig:
    """Return the configuration of a stack's orchestrator; an empty one if it isn't for Modal.

    Raises:
        UsageError: Its values are wrong, or half a token pair.
    """
    if component.flavor_name not in OUR_FLAVORS:
        return ModalOrchestratorConfig()
    known = {
        name: value
        for name, value in component.configuration.items()
        if name in ModalOrchestratorConfig.model_fields and value is not None
    }
    try:
        return ModalOrchestratorConfig(**known)
    except ValidationError as error:
        # Its own imports take a step's process 10 ms.
        from modalrun.spec.validation import validation_message

        where, problem = validation_message(error, known)
        at = f": '{path_name(where)}'" if where else ""
        raise UsageError(
            f"The orchestrator '{component.name}' of the stack{at}{problem}",
            hint=f"Change it with 'zenml orchestrator update {shlex.quote(component.name)} ...'.",
        ) from None
    except ValueError as error:
        raise UsageError(f"The orchestrator '{component.name}' of the stack: {error}") from None


def component_defaults(config: ModalOrchestratorConfig) -> SettingsLayer:
    """Return the settings that a component gives as defaults."""
    values = config.model_dump(include=set(FIELD_NAMES), exclude_unset=True, exclude_none=True)
    return SettingsLayer(values)


def credentials(config: ModalOrchestratorConfig) -> tuple[str, str] | None:
    """Return the Modal token of a component, read from ZenML's secret store if it refers to that.

    Raises:
        NotFoundError: The secret, or its key, doesn't exist.
    """
    try:
        token_id, token_secret = config.token_id, config.token_secret
    except KeyError:
        names = " and ".join(
            text
            for text in (config.__dict__["token_id"], config.__dict__["token_secret"])
            if is_secret_reference(text)
        )
        raise NotFoundError(
            f"The Modal token of the stack's orchestrator refers to {names}, and ZenML has no such"
            " secret or key.",
            hint="'zenml secret list' shows what there is.",
        ) from None
    return (token_id, token_secret) if token_id and token_secret else None
