"""Define the configuration of the orchestrator component that represents modalrun in a stack."""

from __future__ import annotations

from pydantic import ConfigDict
from zenml.orchestrators import BaseOrchestratorConfig
from zenml.utils.secret_utils import SecretField

from modalrun.errors import NotFoundError
from modalrun.zenml_api.component import ComponentValues, is_reference


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


def credentials(values: ComponentValues) -> tuple[str, str] | None:
    """Return the Modal token of a component, read from ZenML's secret store if it refers to that.

    Raises:
        NotFoundError: The secret, or its key, doesn't exist.
    """
    token = values.token
    if token is None or not any(map(is_reference, token)):
        return token
    config = ModalOrchestratorConfig(token_id=token[0], token_secret=token[1])
    try:
        # ZenML's class reads what they refer to.
        return config.token
    except KeyError:
        raise NotFoundError(
            "The Modal token of the stack's orchestrator refers to"
            f" {' and '.join(filter(is_reference, token))}, and ZenML has no such secret or key.",
            hint="'zenml secret list' shows what there is.",
        ) from None
