"""Record the end of a run whose sandbox has ended without recording it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from modalrun.errors import ConnectionLostError, ModalrunError, NotFoundError, UsageError
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.observe.status import connect
from modalrun.run.metadata import found_metadata
from modalrun.run.outcome import ENDED_AS_A_WHOLE, LOST, PAUSED
from modalrun.run.status import WAITS, RunStatus, derive_status
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway


@dataclass(frozen=True)
class Reconciled:
    """The result: the status afterwards, whether the record changed, and what was done."""

    status: RunStatus
    changed: bool
    text: str


def reconcile(
    status: RunStatus,
    *,
    force: bool = False,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> Reconciled:
    """Record the end of a run whose sandbox has ended, and of its unfinished steps.

    Args:
        status: The run's status now.
        force: Whether to record it even if Modal's state of the sandbox is unknown.

    Raises:
        UsageError: Step sandboxes still run, or modalrun did not start the run. Nothing changed.
        NotFoundError, ConnectionLostError: The state of the sandbox is unknown. Nothing changed.
        AuthenticationError: ZenML refuses the credentials.
    """
    state = status.state
    if status.run.finished:
        return Reconciled(status, False, f"The run is recorded as '{state}' already.")
    if status.run.status == PAUSED and status.over:
        return Reconciled(status, False, f"The record is right. {WAITS}")
    if status.modal.sandbox == "running":
        return Reconciled(
            status, False, f"The run is '{state}' and its sandbox runs: the record is right."
        )
    if state == LOST and not status.over:
        # The steps that still run may complete, and the run can be resumed.
        commands = " or ".join(f"'{one}'" for note in status.notes for one in note.commands)
        raise UsageError(_unchanged(status), hint=f"Use {commands}.")
    if state != LOST and not force:
        raise _unknown(status)
    resume = f"modalrun resume {status.run.id}"
    hint = ""
    if any(resume in one.commands for one in status.notes):
        hint = f" '{resume}' could have continued it."
    end = "ended" if state == LOST else "could not be found"
    if status.modal.problem and not status.modal.not_found:
        end = "could not be checked"
    if status.modal.end is not None and status.modal.end.kind in ENDED_AS_A_WHOLE:
        end = ENDED_AS_A_WHOLE[status.modal.end.kind]
    elif status.modal.exit_code is not None:
        end = f"ended with exit code {status.modal.exit_code}"
    reason = f"The run sandbox {end}; recorded by 'modalrun reconcile'."
    if status.run.metadata is not None:
        # Its submission may have been killed before it could.
        zenml.publish_metadata(status.run.id, found_metadata(status.run.metadata))
    used: list[str] = []
    if status.run.metadata is not None and status.modal.end is not None and status.modal.end.killed:
        # What is only told must not keep the end from being recorded.
        with suppress(ModalrunError):
            connection = connect(status.run.id, status.run.metadata, zenml=zenml, modal=modal)
            sandbox = modal.run_sandbox(connection, status.run.id, status.run.metadata)
            used = sandbox.told_usage()
    changed = zenml.finalize_run(status.run.id, reason, used=used, unseen=True)
    after = derive_status(*zenml.read_run_and_steps(status.run.id), status.modal)
    text = f"The run's sandbox {end}: the run is now recorded as '{after.run.status}'.{hint}"
    return Reconciled(after, changed, text)


def _unknown(status: RunStatus) -> UsageError | NotFoundError | ConnectionLostError:
    text = _unchanged(status)
    hint = "'--force' records its end all the same; make sure that nothing of it runs any more."
    if (parent := status.run.parent) is not None:
        hint = f"'modalrun reconcile {parent}' records the end of both once its sandbox is gone."
    if status.run.metadata is None:
        return UsageError(text, hint=hint)
    if status.modal.not_found:
        return NotFoundError(text, hint=hint)
    return ConnectionLostError(text, hint=hint)


def _unchanged(status: RunStatus) -> str:
    return " ".join([*(note.text for note in status.notes), "Nothing was changed."])
