"""What has to be known of a run to stop it, and how its end is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from zenml.client import Client

from modalrun.facts import RunFacts, from_metadata
from modalrun.zenml_api.runs import _get_run, _steps
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
    """

    id: str
    name: str
    status: str
    finished: bool
    running: tuple[str, ...]
    facts: RunFacts | None


def look(run_id: str) -> Stoppable:
    """A run as it stands now.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        run = _get_run(Client(), run_id)
        running = [s.name for s in _steps(Client(), run_id) if not s.status.is_finished]
        return Stoppable(
            id=str(run.id),
            name=run.name,
            status=run.status.value,
            finished=run.status.is_finished,
            running=tuple(dict.fromkeys(running)),
            facts=from_metadata(RunFacts, run.run_metadata),
        )
