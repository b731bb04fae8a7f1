"""What has to be known of a run so that another driver can go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.orchestrators.publish_utils import publish_pipeline_run_metadata

from modalrun.errors import UsageError
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import RunMetadata, from_metadata
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.run_access import token_of
from modalrun.zenml_api.runs import _get_run, _run_url, environment
from modalrun.zenml_api.stacks import stand_in


@dataclass(frozen=True)
class Interrupted:
    """A run that another driver can go on with, or that is over.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        url: Its page on ZenML's dashboard, where there is one.
        status: ZenML's word for its state.
        finished: Whether that state is final.
        facts: What is recorded of its run sandbox, if it has got one.
        manifest: What the driver needs; None for a run without a driver.
        environment: Variables for the driver. They hold ZenML's credentials.
        credentials: The Modal token of the stack's orchestrator. Never printed.
    """

    id: str
    name: str
    url: str | None
    status: str
    finished: bool
    facts: RunMetadata | None
    manifest: RunManifest | None
    environment: Mapping[str, str] = field(repr=False)
    credentials: tuple[str, str] | None = field(repr=False)


def read(run_id: str) -> Interrupted:
    """A run as ZenML has it now.

    Raises:
        NotFoundError: There is no such run.
        UsageError: It has lost its stack, or its manifest is damaged.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        run = _get_run(Client(), run_id)
        if run.snapshot is None or run.snapshot.stack is None:
            raise UsageError(f"The run {run_id} has lost its deployment or its stack.")
        try:
            manifest = RunManifest.from_metadata(run.run_metadata)
        except ValueError as error:
            raise UsageError(
                f"The run {run_id} can't be resumed by this modalrun: {error}.",
                hint="Use the modalrun that submitted it.",
            ) from error
        model = run.snapshot.stack
        going_on = manifest is not None and not run.status.is_finished
        return Interrupted(
            id=str(run.id),
            name=run.name,
            url=_run_url(run),
            status=run.status.value,
            finished=run.status.is_finished,
            facts=from_metadata(RunMetadata, run.run_metadata),
            manifest=manifest,
            environment=environment(run.id, stand_in(model), str(run.orchestrator_run_id))
            if going_on
            else {},
            credentials=token_of(run, manifest.plan.target)
            if going_on and manifest is not None
            else None,
        )


def store(run_id: str, metadata: Mapping[str, Any]) -> None:
    """Store facts about a run's new sandbox with the run.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        orchestrator_id = Client().active_stack.orchestrator.id
        publish_pipeline_run_metadata(UUID(run_id), {orchestrator_id: dict(metadata)})
