"""Looking at runs: which one is meant, and what ZenML and Modal, read together, say about it.

Nothing is kept on disk: whoever has the credentials sees the same from any machine.
"""

from __future__ import annotations

from modalrun.errors import NotFoundError
from modalrun.observe import reaching
from modalrun.run import records, status
from modalrun.run.records import LATEST, RunRecord
from modalrun.run.status import NOT_ASKED, RunStatus, SandboxState

_CANDIDATES = 50
"""How many recent runs are compared with a text that means none of them."""


def resolve(text: str | None, *, interactive: bool) -> RunRecord:
    """The run that a command's RUN means.

    Args:
        text: A run id, the beginning of one, a run's name, or "latest"; None where it was left out.
        interactive: Whether a person sits at a terminal: then left out means "latest".

    Raises:
        UsageError: It was left out, and there is no terminal.
        NotFoundError: It means no run, or several.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    meant = records.run_argument(text, interactive=interactive)

    from modalrun.zenml_api.records import queries as zenml_history

    if meant == LATEST:
        newest = zenml_history.listed(limit=1)
        if not newest:
            raise NotFoundError(
                "ZenML knows of no run that modalrun has started.",
                hint="Check the active project and server with 'zenml status'.",
            )
        return newest[0]
    matches = zenml_history.matching(meant)
    known = [] if matches else zenml_history.listed(limit=_CANDIDATES)
    return records.select(meant, matches, known)


def look(run: RunRecord, *, exit_wanted: bool = False) -> RunStatus:
    """What is true of a run now, from ZenML's record and, where it matters, from Modal.

    Args:
        run: The run.
        exit_wanted: Whether to find out the exit code of a run that failed, which takes Modal.

    Raises:
        NotFoundError: ZenML has the run no longer.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there. That
            Modal doesn't answer is no error: the view says what could not be checked.
    """
    from modalrun.zenml_api.records import queries as zenml_history

    fresh, steps = zenml_history.read(run.id)
    modal = _ask_modal(fresh, exit_wanted=exit_wanted)
    if not fresh.finished and modal.sandbox == "ended":
        # It may have recorded its end after we asked ZenML and before we asked Modal.
        fresh, steps = zenml_history.read(run.id)
    return status.derive_status(fresh, steps, modal)


def reread(view: RunStatus) -> RunStatus:
    """A view with ZenML's record as it is now; Modal is not asked again.

    Raises:
        NotFoundError, AuthenticationError, ConnectionLostError: As for `look`.
    """
    from modalrun.zenml_api.records import queries as zenml_history

    fresh, steps = zenml_history.read(view.run.id)
    return status.derive_status(fresh, steps, view.modal)


def _ask_modal(run: RunRecord, *, exit_wanted: bool) -> SandboxState:
    if run.metadata is None or not status.needs_modal(run, exit_wanted=exit_wanted):
        return NOT_ASKED
    from modalrun.modal_api import lookup

    facts = run.metadata
    return lookup.view(run.id, facts, lambda: reaching.connection(run.id, facts))
