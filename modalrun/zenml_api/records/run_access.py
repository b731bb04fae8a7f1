"""The Modal token with which the sandboxes of a run are reached."""

from __future__ import annotations

from zenml.client import Client
from zenml.models import PipelineRunResponse

from modalrun.zenml_api.compiling.code_settings import component_config, credentials
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.records.queries import get_run
from modalrun.zenml_api.stacks import orchestrator_of


def credentials_of(run_id: str, target: str) -> tuple[str, str] | None:
    """The Modal token of a run's orchestrator component; None where Modal's own configuration is
    to be used.

    Args:
        run_id: ZenML's run id.
        target: Where the run is; the local Modal server has a token of its own.

    Raises:
        NotFoundError: There is no such run.
        UsageError: The component's values are wrong, or ZenML's secret store has no such secret.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    if target != "modal":
        return None
    with translated():
        return token_of(get_run(Client(), run_id), target)


def token_of(run: PipelineRunResponse, target: str) -> tuple[str, str] | None:
    """As `credentials_of`, for a run that was read already."""
    stack = run.snapshot.stack if run.snapshot else None
    if target != "modal" or stack is None:
        return None
    return credentials(component_config(orchestrator_of(stack)))
