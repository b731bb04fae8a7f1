"""Define the configuration of the orchestrator component that represents modalrun in a stack."""

from __future__ import annotations

from pydantic import ConfigDict
from zenml.orchestrators import BaseOrchestratorConfig
from zenml.utils.secret_utils import SecretField

from modalrun.errors import NotFoundError
from modalrun.zenml_api.component import (
    ComponentValues,
    OrchestratorComponent,
    component_values,
    is_reference,
)


class ModalOrchestratorConfig(BaseOrchestratorConfig, ComponentValues):
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


def component_config(component: OrchestratorComponent) -> ModalOrchestratorConfig:
    """Return the configuration of a stack's orchestrator; an empty one if it isn't for Modal.

    Raises:
        UsageError: Its values are wrong, or half a token pair.
    """
    return component_values(component, ModalOrchestratorConfig)


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
            if is_reference(text)
        )
        raise NotFoundError(
            f"The Modal token of the stack's orchestrator refers to {names}, and ZenML has no such"
            " secret or key.",
            hint="'zenml secret list' shows what there is.",
        ) from None
    return (token_id, token_secret) if token_id and token_secret else None
