"""Run a command in the sandbox of a running step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modalrun.errors import ConflictError, ModalrunError, NotFoundError, UsageError
from modalrun.modal_api.client import Connection, ForeignSandboxError
from modalrun.modal_api.commands import Write
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.observe.log_filter import unknown_steps
from modalrun.observe.status import child_attempts, connect, find_sandbox
from modalrun.run.contract import MODAL_TOKEN, ORDER
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import UNBEGUN, RunRecord, StepRecord
from modalrun.util.retry import repeated
from modalrun.util.text import listing
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

RECORD_SECONDS = 10.0
"""How long a step that has just begun may take to record its sandbox."""


@dataclass(frozen=True)
class Place:
    """Where a command runs.

    Attributes:
        sandbox: Modal's id of the sandbox.
        subject: Whose sandbox it is, for messages.
        without: Variables of the sandbox that its steps don't see.
        environment: Variables that ZenML sets in the step's process, without those of the stack
            and the values of ZenML's secrets.
    """

    run_id: str
    sandbox: str
    subject: str
    without: tuple[str, ...]
    connection: Connection
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> str:
        """A sentence for its end."""
        return f"The sandbox of the {self.subject} has ended."


def find_place(
    run_id: str,
    step: str | None,
    *,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> Place:
    """Find the sandbox of a running step, and connect to Modal.

    Args:
        step: The step; None for the only one that runs, and for any in `pipeline` mode.

    Raises:
        NotFoundError: The run or the step does not run, or ZenML has none of that name.
        UsageError: Several steps run.
        AuthenticationError, ConnectionLostError: ZenML's server or Modal refuses or is not there.
    """
    run, own_steps = zenml.read_run_and_steps(run_id)
    if run.finished:
        raise NotFoundError(
            f"The run {run.name} ({run.id}) has ended ({run.status}): it has no sandbox any more."
        )
    run = find_sandbox(run, placed=True, zenml=zenml, modal=modal)
    metadata = run.metadata
    if metadata is None:
        why = "It is only just being submitted: try again." if run.announced else None
        if run.parent is not None:
            why = f"It is the run of a child pipeline, in the sandboxes of the run {run.root}:"
            why += f" 'modalrun exec {run.root}{_labelled(run, step, zenml)}' runs a command there."
        raise NotFoundError(f"The run {run.name} ({run.id}) has no sandbox.", hint=why)
    below = {one.name: one for one in child_attempts(run, zenml=zenml)}
    steps = [*own_steps, *below.values()]
    running = [one for one in steps if one.status == "running"]
    if step is not None:
        chosen: StepRecord | None = _running(step, steps, running)
    elif len(running) == 1 or metadata.mode == "pipeline":
        chosen = running[0] if len(running) == 1 else None
    elif running:
        raise UsageError(
            f"{len(running)} steps of the run {run.name} run, each in a sandbox: which one?",
            hint=f"Name one with --step: {_names(running)}.",
        )
    else:
        raise NotFoundError(
            f"No step of the run {run.name} runs at present.",
            hint=f"'modalrun status {run.id}' shows its steps.",
        )
    # The inline steps of a dynamic pipeline run in the run sandbox.
    own = chosen.metadata if chosen is not None and metadata.mode == "per_step" else None
    if chosen is not None and own is None and metadata.mode == "per_step":
        own = _recorded(*_owner(run, chosen.name), zenml)
    sandbox = own.sandbox_id if own is not None else metadata.sandbox_id
    return Place(
        run.id,
        sandbox,
        f"step '{chosen.name}'" if chosen is not None else f"run {run.name}",
        _hidden(metadata, sandbox),
        connect(run.id, metadata, zenml=zenml, modal=modal),
        zenml.environment_of(*(_owner(run, chosen.name) if chosen is not None else (run.id, None))),
    )


def _labelled(child: RunRecord, step: str | None, zenml: ZenMLGateway) -> str:
    """Return the option that names a step of a child pipeline's run to the run `root`."""
    if step is None or child.root is None:
        return ""
    root, _ = zenml.read_run_and_steps(child.root)
    return next(
        (f" --step {label}/{step}" for label, one in root.children.items() if one.id == child.id),
        "",
    )


def _owner(run: RunRecord, label: str) -> tuple[str, str]:
    """Return the id of the run that a step belongs to, and the step's name there."""
    above, _, name = label.rpartition("/")
    return (run.children[above].id, name) if above in run.children else (run.id, label)


def _running(name: str, steps: Sequence[StepRecord], running: Sequence[StepRecord]) -> StepRecord:
    """Return the running step of a name, or raise a NotFoundError that says which ones run."""
    for one in running:
        if one.name == name:
            return one
    hint = f"Running: {_names(running)}." if running else "No step of the run runs at present."
    for one in steps:
        if one.name == name:
            state = f"has ended ({one.status})" if one.finished else f"does not run ({one.status})"
            if one.status in UNBEGUN:
                state = "has not begun"
            raise NotFoundError(f"The step '{name}' {state}.", hint=hint)
    raise unknown_steps([name], [one.name for one in steps]) or NotFoundError(
        f"The run has no step named '{name}'.", hint=hint
    )


def _recorded(run_id: str, name: str, zenml: ZenMLGateway) -> StepMetadata | None:
    """Wait for the metadata of a step that has just begun; an inline step has none."""
    if zenml.step_names(run_id) is None:
        return None

    def read() -> StepMetadata:
        _, steps = zenml.read_run_and_steps(run_id)
        if (found := next((s.metadata for s in steps if s.name == name), None)) is None:
            raise NotFoundError(
                f"ZenML has no sandbox on record for the step '{name}'.",
                hint="The step records it just after its begin: try again in a moment.",
            )
        return found

    return repeated(read, NotFoundError, RECORD_SECONDS, lambda _: None)


def _names(steps: Sequence[StepRecord]) -> str:
    return listing([step.name for step in steps], most=20)


def _hidden(metadata: RunMetadata, sandbox: str) -> tuple[str, ...]:
    # The token is the driver's. In `pipeline` mode there is none but the user's own.
    is_driver = metadata.mode == "per_step" and sandbox == metadata.sandbox_id
    return (*MODAL_TOKEN, ORDER) if is_driver else (ORDER,)


def execute(
    place: Place,
    command: Sequence[str],
    write: Write,
    *,
    stdin: int,
    terminal: bool,
    modal: ModalGateway = MODAL,
) -> int:
    """Run a command to its end; return its exit code.

    Args:
        place: Where.
        command: Program and arguments; empty for a shell.
        terminal: Whether the command gets a terminal.

    Raises:
        NotFoundError: The sandbox is not the run's, has ended, or is not known here.
        ConnectionLostError: The connection is lost; the command may go on.
    """
    try:
        return modal.run_command(
            place.connection,
            place.sandbox,
            place.run_id,
            command,
            write,
            environment=place.environment,
            without=place.without,
            stdin=stdin,
            terminal=terminal,
        )
    except ForeignSandboxError:
        raise
    except (NotFoundError, ConflictError) as error:
        # Modal may not know it: it is in another workspace, or on another machine.
        problem = place.ended if has_ended(place, modal=modal) else error.problem
        hint = f"'modalrun status {place.run_id}' shows the run."
        raise NotFoundError(problem, hint=hint) from error


def has_ended(place: Place, *, modal: ModalGateway = MODAL) -> bool:
    """Return whether Modal says that the sandbox has ended; not if Modal can't be asked."""
    with contextlib.suppress(ModalrunError):
        return modal.has_ended(place.connection, place.sandbox, place.run_id)
    return False
