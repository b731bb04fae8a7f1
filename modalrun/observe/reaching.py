"""A connection to where the sandboxes of a run are, for everybody who looks at it or steers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modalrun.run.metadata import RunMetadata

if TYPE_CHECKING:
    from modalrun.modal_api import Connection


def connection(run_id: str, facts: RunMetadata) -> Connection:
    """Connect with the Modal token of the run's orchestrator, else by Modal's own configuration.

    Args:
        run_id: ZenML's run id.
        facts: Where its sandboxes are.

    Raises:
        AuthenticationError: Modal or ZenML does not accept the credentials.
        UsageError: The token is incomplete, or refers to a secret that ZenML doesn't have.
        ConnectionLostError: Modal or ZenML can't be reached.
    """
    from modalrun.modal_api import Connection
    from modalrun.zenml_api.records.run_access import credentials_of

    credentials = credentials_of(run_id, facts.target)
    return Connection(facts.target, credentials=credentials)
