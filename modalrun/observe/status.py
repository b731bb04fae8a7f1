"""Select a run and read its status from ZenML and Modal.

Nothing is kept on disk: with the credentials, any machine reads the same.
"""

from __future__ import annotations

import time
from dataclasses import replace

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.records import LATEST, RunRecord, StepRecord, select
from modalrun.run.sandbox_exit import ExitKind
from modalrun.run.status import NOT_ASKED, RunStatus, SandboxState, derive_status, needs_modal
from modalrun.run.timeline import Timeline, timeline_of
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

_CANDIDATES = 50
"""Recent runs that are compared with a RUN argument that matches none."""


def resolve(argument: str, *, zenml: ZenMLGateway = ZENML) -> RunRecord:
    """Return the run that a RUN argument selects.

    Args:
        argument: A run id, the beginning of one, a run's name, or "latest".

    Raises:
        NotFoundError: It matches no run, or several.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    if argument == LATEST:
        newest = zenml.newest_runs(limit=1)
        if not newest:
            raise NotFoundError(
                "ZenML knows of no run that modalrun has started.",
                hint="'modalrun doctor' shows the active project and server.",
            )
        return newest[0]
    matches = zenml.matching_runs(argument)
    return select(argument, matches, [] if matches else zenml.newest_runs(limit=_CANDIDATES))


def read_status(
    run_id: str,
    *,
    with_exit_code: bool = False,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> RunStatus:
    """Read the status of a run from ZenML and, where ZenML's record is not enough, from Modal.

    Args:
        with_exit_code: Whether to find out the exit code of a failed run, which takes Modal.

    Raises:
        NotFoundError: ZenML has no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there. That
            Modal does not answer is no error: a note of the status says so.
    """
    run, steps = zenml.read_run_and_steps(run_id)
    recorded = run.metadata is not None
    run = find_sandbox(run, zenml=zenml, modal=modal)
    found = run.metadata
    state = _sandbox_state(run, zenml, modal, with_exit_code=with_exit_code)
    if not recorded and state.end is not None and state.end.kind is ExitKind.NOT_STARTED:
        # The submission asks for another one.
        run, found, state = replace(run, metadata=None), None, NOT_ASKED
    if not run.finished and state.sandbox == "ended":
        # The run may have recorded its end between the two reads.
        run, steps = zenml.read_run_and_steps(run_id)
        run = replace(run, metadata=run.metadata or found)
    return derive_status(run, steps, state)


def read_timeline(status: RunStatus, *, zenml: ZenMLGateway = ZENML) -> Timeline:
    """Read the timeline of a run whose status is known.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    attempts = zenml.step_attempts([status.run])[status.run.id]
    return timeline_of(status, attempts, time.time())


def child_attempts(run: RunRecord, *, zenml: ZenMLGateway = ZENML) -> list[StepRecord]:
    """Return every attempt of the steps of a run's child pipelines, named by their labels.

    Raises:
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    attempts = zenml.step_attempts(list(run.children.values()))
    return [
        replace(one, name=f"{label}/{one.name}")
        for label, child in run.children.items()
        for one in attempts[child.id]
    ]


def refresh(status: RunStatus, *, zenml: ZenMLGateway = ZENML) -> RunStatus:
    """Read ZenML's record again, and keep Modal's state.

    Raises:
        NotFoundError, AuthenticationError, ConnectionLostError: As for `read_status`.
    """
    run, steps = zenml.read_run_and_steps(status.run.id)
    run = replace(run, metadata=run.metadata or status.run.metadata)
    return derive_status(run, steps, status.modal)


def connect(
    run_id: str,
    metadata: RunMetadata | Announced,
    *,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> Connection:
    """Connect to Modal with the token of the run's orchestrator, else with Modal's own settings.

    Args:
        metadata: What modalrun stored with the run.

    Raises:
        AuthenticationError: Modal or ZenML refuses the credentials.
        UsageError: The token is incomplete.
        NotFoundError: It names a secret that ZenML does not have.
        ConnectionLostError: Modal or ZenML can't be reached.
    """
    credentials = zenml.credentials_of(run_id, metadata.target)
    return modal.connect(metadata.target, credentials=credentials)


def find_sandbox(
    run: RunRecord,
    *,
    placed: bool = False,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> RunRecord:
    """Return a run with its sandbox, also one whose submission was killed before it recorded it.

    Args:
        placed: Whether to leave out a sandbox that still waits for its place.
    """
    announced = run.announced
    if run.metadata is not None or announced is None:
        return run
    if announced.withdrawn or announced.exit_code is not None:
        return run
    try:
        if run.finished:
            _, steps = zenml.read_run_and_steps(run.id)
            if all(step.status == "cached" for step in steps):
                return run
        connection = connect(run.id, announced, zenml=zenml, modal=modal)
        found = modal.find_announced(connection, run.id, announced, placed=placed)
    except ModalrunError:
        return run
    return replace(run, metadata=found)


def _sandbox_state(
    run: RunRecord, zenml: ZenMLGateway, modal: ModalGateway, *, with_exit_code: bool
) -> SandboxState:
    metadata = run.metadata
    if metadata is None or not needs_modal(run, with_exit_code=with_exit_code):
        return NOT_ASKED
    return modal.sandbox_state(
        run.id, metadata, lambda: connect(run.id, metadata, zenml=zenml, modal=modal)
    )
