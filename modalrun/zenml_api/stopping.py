"""What has to be known of a run to stop it, and how its end is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from zenml.client import Client

from modalrun.facts import RunFacts, from_metadata
from modalrun.zenml_api.code_settings import component_config, credentials
from modalrun.zenml_api.runs import _get_run, _steps
from modalrun.zenml_api.stacks import orchestrator_of
from modalrun.zenml_api.translate import translated


@dataclass(frozen=True)
class Stoppable:
    """A run that somebody wants to end.

    Attributes:
        id: ZenML's run id.
        name: Its name.
        status: ZenML's word for its state.
        finished: Whether that state is final.
        running: Steps that ZenML records as unfinished.
        facts: Where its sandboxes are; None where modalrun has stored nothing (yet).
        credentials: The Modal token of its stack's orchestrator, if it has one. Never printed.
    """

    id: str
    name: str
    status: str
    finished: bool
    running: tuple[str, ...]
    facts: RunFacts | None
    credentials: tuple[str, str] | None = field(default=None, repr=False)


def look(run_id: str) -> Stoppable:
    """A run as it stands now.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        run = _get_run(Client(), run_id)
        running = [s.name for s in _steps(Client(), run_id) if not s.status.is_finished]
        facts = from_metadata(RunFacts, run.run_metadata)
        stack = run.snapshot.stack if run.snapshot else None
        token = None
        if facts is not None and facts.target == "modal" and stack is not None:
            token = credentials(component_config(orchestrator_of(stack)))
        return Stoppable(
            id=str(run.id),
            name=run.name,
            status=run.status.value,
            finished=run.status.is_finished,
            running=tuple(dict.fromkeys(running)),
            facts=facts,
            credentials=token,
        )
