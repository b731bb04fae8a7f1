"""Derive the outcome of a run that has ended, and record its end where it could not itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone

from modalrun.driver.lines.last_lines import LastLines
from modalrun.errors import (
    AuthenticationError,
    ConnectionLostError,
    ModalrunError,
    NoRunError,
    NotFoundError,
    RunFailedError,
    RunStoppedError,
)
from modalrun.observe.cost import cost_details
from modalrun.observe.handle import RunHandle
from modalrun.observe.status import child_attempts
from modalrun.run.failure_hints import hint_on_end, hint_on_failure
from modalrun.run.metadata import hints_metadata
from modalrun.run.outcome import (
    ENDED_AS_A_WHOLE,
    LOST,
    PAUSED,
    Outcome,
    answer_commands,
    child_details,
    exit_code_and_headline,
)
from modalrun.run.progress import RunProgress, StepProgress
from modalrun.run.records import StepRecord
from modalrun.run.sandbox_exit import (
    ENDED_WITH_SERVER,
    ExitKind,
    SandboxExit,
    is_of_entrypoint,
    of_entrypoint,
)
from modalrun.run.status import NOT_ASKED, RunStatus, derive_status, may_be_rerun
from modalrun.run.timeline import timeline_of
from modalrun.zenml_api.gateway import ZenMLGateway

_MOST_OUTPUTS = 8


def accepted(run: RunHandle) -> Outcome:
    """Return the outcome of an asynchronous run, once other processes can find the run."""
    run.recording.join()
    return Outcome(
        exit_code=0,
        headline="Run accepted; it continues without this command.",
        details=(*run.links, *run.commands),
        steps=(),
        run_id=run.run_id,
        asynchronous=True,
    )


def derive_outcome(
    run: RunHandle, progress: RunProgress, end: SandboxExit, zenml: ZenMLGateway
) -> Outcome:
    """Derive a run's outcome from ZenML's record and the end of its sandbox.

    Raises:
        ConnectionLostError, AuthenticationError: ZenML can't be asked.
        NoRunError: The run was deleted meanwhile.
    """
    timeout = run.plan.run_sandbox.timeout
    end = end.with_memory_limit(run.plan.run_sandbox.resources.memory_limit)
    what, how = end.kind.label, f"{end.kind.label}, exit code {end.exit_code}"
    if end.kind is ExitKind.UNRECORDED:
        what = how = end.reason.rstrip(".")
    with _ended(run.run_id, what):
        if driver_was_killed(run, end):
            record = zenml.read_run(run.run_id)
            if not record.finished and record.status != "stopping":
                if end.is_infrastructure:
                    return _orphaned(run, progress, end)
                # Another driver would need as much memory.
                run.sandboxes.terminate()
        # A sandbox that was killed as a whole could not record its own end.
        used = run.sandbox.told_usage() if end.killed else ()
        lines: Sequence[str] = ()
        if run.plan.settings.mode == "pipeline" and (end.killed or end.kind is ExitKind.TIMED_OUT):
            lines = LastLines.of(run.sandbox.output_tail())
        reason = _reason(run, progress, end, how)
        zenml.finalize_run(run.run_id, reason, lines=lines, used=used)
        record, steps = zenml.read_run_and_steps(run.run_id)
        below = child_attempts(record, zenml=zenml)
    view = derive_status(record, steps, NOT_ASKED)
    view = replace(view, steps=_with_hints(run, view, zenml))
    failed, steps = [step.name for step in view.failed], view.steps
    code, headline = exit_code_and_headline(end, record.status, failed, timeout)
    details: list[tuple[str, str]] = []
    blamed = any(step.status == "failed" or step.reason == record.reason for step in view.failed)
    if code == RunFailedError.exit_code and not blamed and record.reason:
        # No step is to blame: a hook, or the function of a dynamic pipeline.
        details.append(("reason", record.reason))
    details += [*run.links, *child_details(record), run.commands[0]]
    # Of a failed step, the command and what to do are beside its reason.
    details += [] if failed else [("logs", f"modalrun logs {run.run_id}")]
    details.append(("report", f"modalrun report {run.run_id} --open"))
    attempts = _attempts(view, zenml)
    now = datetime.now(timezone.utc)
    details += cost_details(run.plan, record, [*(attempts or steps), *below], progress.idle, now)
    details += _outputs(run.run_id, [*below, *steps])
    told = any(step.next for step in view.failed)
    mode, target = run.plan.settings.mode, run.plan.target
    hint = hint_on_failure(record.reason, target) or hint_on_end(end, mode, target)
    if hint and not told:
        details.append(("next", hint))
    if may_be_rerun(record):
        details.append(("rerun", run.with_folder(f"modalrun rerun {run.run_id}")))
    if record.status == PAUSED:
        *answers, resume = answer_commands(record)
        details += [*(("answer", one) for one in answers), ("resume", run.with_folder(resume))]
    shown = _steps(run.steps, steps, progress)
    return Outcome(
        code,
        headline,
        tuple(details),
        shown,
        run_id=run.run_id,
        source_root=run.source_root,
        timeline=None if attempts is None else timeline_of(view, attempts, now.timestamp()),
        status=record.status,
    )


@contextmanager
def _ended(run_id: str, what: str) -> Iterator[None]:
    """Say with an error of ZenML that the run sandbox has ended, and how (`what`)."""
    try:
        yield
    except NoRunError as error:
        raise NoRunError("The run's record was deleted in ZenML while it ran.") from error
    except ConnectionLostError as error:
        raise ConnectionLostError(
            f"The run sandbox ended ({what}), but ZenML can't be asked how: {error.problem}",
            hint=f"Run 'modalrun status {run_id}' when the server is back.",
        ) from error
    except AuthenticationError as error:
        raise AuthenticationError(
            f"The run sandbox ended ({what}), but ZenML doesn't say how: {error.problem}",
            hint=f"{error.hint} Then 'modalrun status {run_id}' shows how the run ended, and"
            f" 'modalrun reconcile {run_id}' records its end if need be.",
        ) from error


def _outputs(run_id: str, steps: Sequence[StepRecord]) -> list[tuple[str, str]]:
    """Return what the steps of a run have made, with its types; of many steps the last ones'."""
    made = [
        (step.name, one) for step in steps if step.status == "completed" for one in step.outputs
    ]
    details = [
        ("output", f"{one.name} version {one.version} ({one.kind}) of {step}")
        for step, one in made[-_MOST_OUTPUTS:]
    ]
    if (more := len(made) - len(details)) > 0:
        details.append(("output", f"and {more} more: modalrun report {run_id}"))
    return details


def _attempts(view: RunStatus, zenml: ZenMLGateway) -> Sequence[StepRecord] | None:
    """Return all attempts of the steps of a run that has ended; None if ZenML can't be asked."""
    if all(step.attempt == 1 for step in view.steps):
        return view.steps
    with suppress(ModalrunError):
        return zenml.step_attempts([view.run])[view.run.id]
    return None


def _with_hints(run: RunHandle, view: RunStatus, zenml: ZenMLGateway) -> tuple[StepRecord, ...]:
    """Add to failed steps what this machine knows of what they have missed, and store it."""
    found = {step.name: run.left_behind(step.failure) for step in view.failed if step.failure}
    hints = {name: text for name, text in found.items() if text is not None}
    if hints:
        # The outcome is told in any case.
        with suppress(ModalrunError):
            zenml.publish_metadata(run.run_id, hints_metadata(hints))
    return tuple(replace(step, hint=hints.get(step.name)) for step in view.steps)


def _reason(run: RunHandle, progress: RunProgress, end: SandboxExit, how: str) -> str:
    """Return why a run has ended whose processes have recorded no reason."""
    if end.kind is ExitKind.TIMED_OUT:
        return f"The run took longer than its timeout of {run.plan.run_sandbox.timeout} s."
    began = any(step.state != "waiting" for step in progress.rows.values())
    if run.plan.run_sandbox.keeps_entrypoint and not began and is_of_entrypoint(end):
        return of_entrypoint(end).reason
    return f"The run sandbox ended ({how})."


def driver_was_killed(run: RunHandle, end: SandboxExit) -> bool:
    """Return whether a driver was killed with its sandbox, so that another one can take over."""
    return run.plan.settings.mode == "per_step" and end.leaves_steps


def running_steps(run: RunHandle, progress: RunProgress) -> set[str] | None:
    """Return the ids of the step sandboxes that run; None where Modal can't be asked.

    Modal's list may lag, so those are asked for too that have no end by the events.
    """
    try:
        running = {sandbox.object_id for sandbox in run.sandboxes.running("step")}
        for row in list(progress.rows.values()):
            if row.sandbox is not None and not row.final and row.sandbox not in running:
                with suppress(NotFoundError):
                    sandbox = run.connection.attach(row.sandbox, run.run_id)
                    running |= {row.sandbox} if sandbox.returncode is None else set()
    except ModalrunError:
        return None
    return running


def _orphaned(run: RunHandle, progress: RunProgress, end: SandboxExit) -> Outcome:
    # A server that has ended can't be asked.
    left = set[str]() if end.kind in ENDED_WITH_SERVER else running_steps(run, progress)
    how = ENDED_AS_A_WHOLE.get(end.kind) or (
        "was ended from outside" if end.kind is ExitKind.TERMINATED else "is gone"
    )
    running = f" (step sandboxes that still run: {len(left)})" if left else ""
    steps = list(progress.rows.values())
    if left is not None:
        # No driver is left to say that a step has ended with its sandbox.
        steps = [
            replace(row, state=LOST)
            if row.state in {"starting", "running"} and row.sandbox not in left
            else row
            for row in steps
        ]
    resume = run.with_folder(f"modalrun resume {run.run_id}")
    return Outcome(
        exit_code=RunStoppedError.exit_code,
        headline=f"The run's driver {how}{running}. The run is not over.",
        details=(*run.links, ("resume", resume), *run.commands),
        # Those that have not begun still wait.
        steps=tuple(steps),
        run_id=run.run_id,
    )


def _steps(
    names: Sequence[str], records: Sequence[StepRecord], progress: RunProgress
) -> tuple[StepProgress, ...]:
    recorded = {step.name: step for step in records}
    # A dynamic pipeline's steps are known only from their records.
    return tuple(
        progress.rows.get(name, StepProgress(name)).recorded_as(recorded.get(name))
        for name in dict.fromkeys((*names, *recorded))
    )
