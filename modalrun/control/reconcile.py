"""`modalrun reconcile`: a record in ZenML that says otherwise than what is true is set right."""

from __future__ import annotations

from dataclasses import dataclass

from modalrun.errors import ConnectionLostError, NotFoundError, UsageError
from modalrun.observe import status
from modalrun.run.outcome import PAUSED
from modalrun.run.records import RunRecord
from modalrun.run.status import LOST, WAITS, RunStatus


@dataclass(frozen=True)
class Reconciled:
    """What was done about a run's record.

    Attributes:
        view: The run afterwards.
        changed: Whether there was anything to set right.
        text: What was found and done; a sentence.
    """

    view: RunStatus
    changed: bool
    text: str


def reconcile(run: RunRecord, *, force: bool = False) -> Reconciled:
    """Record the end of a run whose sandbox is gone, with all its steps.

    Args:
        run: The run.
        force: Settle it even where it can't be found out whether its sandbox still runs.

    Raises:
        UsageError: Step sandboxes of it still run, or modalrun did not start it. Nothing changed.
        NotFoundError, ConnectionLostError: What is true could not be found out. Nothing changed.
        AuthenticationError: ZenML refuses.
    """
    view = status.look(run)
    if view.run.finished:
        return Reconciled(view, False, f"The run is recorded as '{view.state}' already.")
    if view.run.status == PAUSED and view.over:
        return Reconciled(view, False, f"The run is paused: the record is right. {WAITS}")
    if view.modal.sandbox == "running":
        return Reconciled(
            view, False, f"The run is '{view.state}' and its sandbox runs: the record is right."
        )
    if view.state == LOST and not view.over:
        # Only what is certain is settled: these steps may yet end well, and be resumed.
        note = view.notes[0]
        raise UsageError(f"{note.text} Nothing was changed.", hint=f"Use {_either(note.commands)}.")
    if view.state != LOST and not force:
        _refuse(view)
    end = "ended" if view.state == LOST else "could not be found"
    if view.modal.exit_code is not None:
        end = f"ended with exit code {view.modal.exit_code}"

    from modalrun.zenml_api.records import runs as records

    changed = records.finalize_run(
        run.id, f"The run sandbox {end}; recorded by 'modalrun reconcile'."
    )
    after = status.reread(view)
    return Reconciled(
        after, changed, f"The run's sandbox {end}: the run is now recorded as '{after.run.status}'."
    )


def _refuse(view: RunStatus) -> None:
    hint = "'--force' settles it all the same; nothing must run of it any more."
    text = f"{view.notes[0].text} Nothing was changed."
    if view.run.metadata is None:
        raise UsageError(text, hint=hint)
    if view.modal.not_found:
        raise NotFoundError(text, hint=hint)
    raise ConnectionLostError(text, hint=hint)


def _either(commands: tuple[str, ...]) -> str:
    return " or ".join(f"'{command}'" for command in commands)
