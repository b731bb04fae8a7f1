"""Resume a `per_step` run whose driver has ended, or a run that was paused.

Everything that runs is made anew: commands, images, secrets and settings from the run's deployment
in ZenML, which can't be changed, as a submission of it does; the source tree is the caller's own.
ZenML's metadata can be changed by every step of the run and every user of the server. It only says
where the run was, which is checked, and which files it had, to compare them.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from modalrun.errors import Interrupted, NotFoundError, UsageError
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.observe.handle import RunHandle, RunObserver
from modalrun.run.outcome import PAUSED
from modalrun.run.records import CreatedRun, RunRecord
from modalrun.run.status import may_be_rerun
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import preflight
from modalrun.submit.creation import create_run_sandbox, wait_for_sandbox
from modalrun.submit.preflight import Earlier, Job
from modalrun.submit.prepare import plan_deployment
from modalrun.submit.recording import all_run_sandboxes
from modalrun.submit.source.staging import new_files_note, stage_again
from modalrun.submit.withdrawal import Silent, Withdrawal, say_at_last
from modalrun.util import interrupts
from modalrun.util.background import in_background
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

NOT_RESUMED = "Interrupted. The run {0} was not resumed: it is as it was."
NOT_PAUSED = (
    "Interrupted. The new sandbox of the run {0} is terminated. ZenML has not answered whether the"
    " run is recorded as paused again: 'modalrun status {0}' shows it. If the run is lost,"
    " 'modalrun reconcile {0}' records its end, and 'modalrun rerun {0}' runs the rest again."
)
UNANSWERED = (
    "Interrupted. Modal has not answered whether the new sandbox of the run {0} runs. 'modalrun"
    " resume {0}' says so, and resumes the run if it does not."
)


def resume(
    run_id: str,
    observer: RunObserver,
    *,
    source_root: Path,
    zenml: ZenMLGateway = ZENML,
    modal: ModalGateway = MODAL,
) -> RunHandle | str:
    """Give a run that can continue another run sandbox. Call it inside `zenml_session`.

    A signal ends the new sandbox and leaves the run as it was; the observer is told.

    A paused run of a dynamic pipeline continues in either mode. For a `per_step` run whose driver
    has ended, the new driver reads from ZenML which steps have ended and from Modal which still
    run, and continues with the rest. There can't be two sandboxes: the name of a run sandbox is
    unique while it runs.

    Args:
        source_root: Where the source tree is.

    Returns:
        The run with its new run sandbox; or a sentence on why there is nothing to resume.

    Raises:
        NotFoundError: There is no such run, or its deployment, app or local server is gone.
        UsageError: It can't continue, or the source tree is missing or has changed.
        ModalrunError: ZenML or Modal can't be reached.
        KeyboardInterrupt, Interrupted: A signal came.
    """
    begun: list[Callable[[], Silent]] = []
    try:
        return _resume(run_id, observer, source_root, zenml, modal, begun=begun)
    except BaseException as error:
        # The SDK may have turned a signal into an error of its own.
        cause = interrupts.pending() or error
        if not isinstance(cause, KeyboardInterrupt | Interrupted):
            raise
        # More signals must not interrupt this.
        with interrupts.deferred():
            interrupts.forget()
            silent = begun[0]() if begun else None
            text = {None: NOT_RESUMED, "Modal": UNANSWERED, "ZenML": NOT_PAUSED}[silent]
            say_at_last(observer, text.format(run_id))
        if cause is error:
            raise
        raise cause from error


def _resume(
    run_id: str,
    observer: RunObserver,
    source_root: Path,
    zenml: ZenMLGateway,
    modal: ModalGateway,
    *,
    begun: list[Callable[[], Silent]],
) -> RunHandle | str:
    """Resume a run; add to `begun` what undoes the creation of its sandbox, before it begins."""
    observer.phase("Reading the run")
    run = zenml.read_run(run_id)
    if run.finished:
        rerun = f" 'modalrun rerun {run.id}' runs the rest again." if may_be_rerun(run) else ""
        return f"The run {run.id} has ended: {run.status}. There is nothing to resume.{rerun}"
    job = _planned_again(run, source_root, zenml, modal)
    spec = job.plan.sandbox_of_run(run.id)
    if run.status == PAUSED and run.metadata is not None:
        wait_for_sandbox(job, run.id, run.metadata)
    # After a submission whose outcome was unknown it may run without any record.
    if (found := modal.find_running(job.connection, job.plan, spec)) is not None:
        return f"The run sandbox {found} is running. There is nothing to resume."
    source = zenml.read_source(run.id)
    if source is None:
        raise UsageError(
            f"ZenML has no record of the files that the run {run.id} was submitted with.",
            hint=f"Submit the pipeline again. 'modalrun reconcile {run.id}' settles its record.",
        )
    earlier = all_run_sandboxes(run.metadata)
    last = modal.find_last(job.connection, job.plan, spec)
    if last is None and job.plan.target == "local":
        raise NotFoundError(
            f"The local Modal server of this user and machine does not know the run {run.id}.",
            hint="Resume it where it was submitted.",
        )
    if last is not None and last not in earlier:
        # Its creator was interrupted before it could record it.
        earlier = (*earlier, last)
    with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
        staged = Path(folder) / "source"
        _, new, _ = stage_again(source, job.source, staged)
        if new:
            observer.say(new_files_note(new), "yellow")
        observer.phase("Creating the image and the run sandbox")
        plan, registry = zenml.resolve_images(job.plan, job.compiled)
        images = in_background(
            lambda: modal.build_images(job.connection, plan, staged, registry, job.builder)
        )
        record = CreatedRun(run.id, run.name, run.url, zenml.driver_environment(run.id))
        _, steps = zenml.read_run_and_steps(run.id)
        built, unanswered = plan.with_images(images), threading.Event()
        withdrawal = Withdrawal(job, built, zenml, observer, unanswered, resumed=True)
        begun.append(partial(withdrawal.undo_resume, run_id=run.id, paused=run.status == PAUSED))
        handle = create_run_sandbox(
            job,
            built,
            record,
            staged,
            observer=observer,
            zenml=zenml,
            unanswered=unanswered,
            earlier=earlier,
            resumes=(run.metadata and run.metadata.resumes) or (),
            ended=[step.name for step in steps if step.finished],
            take_over=True,
        )
    environment = plan.settings.modal_environment
    settings, what = plan.settings, " (another driver takes over)" if plan.has_driver else ""
    observer.say(f"Run {run.name}", "bold")
    observer.say(f"  id       {run.id}")
    observer.say(f"  sandbox  {handle.sandbox.id}{what}")
    observer.say(f"  target   {plan.target}, app {settings.app_name}, environment {environment}")
    observer.say("")
    return handle


def _planned_again(
    run: RunRecord, source_root: Path, zenml: ZenMLGateway, modal: ModalGateway
) -> Job:
    """Plan and check the run as a submission of its deployment does."""
    if run.parent is not None:
        raise UsageError(
            f"The run {run.id} is that of a child pipeline, which continues with its parent.",
            hint=f"That is 'modalrun resume {run.parent}'.",
        )
    no_driver = UsageError(
        f"The run {run.id} has no driver that another one could replace.",
        hint="Only runs in 'mode: per_step', and runs that are paused, can be resumed."
        f" 'modalrun reconcile {run.id}' settles its record if its sandbox is gone.",
    )
    if run.place is None:
        # modalrun did not start it, or its metadata was changed.
        raise (
            UsageError(f"The run {run.id} can't be resumed: {run.problem}")
            if run.problem
            else no_driver
        )
    spec = RunSpec.of_snapshot(run.place.target, source_root, own_code=False)
    compiled = zenml.load_deployment_of_run(run.id, spec)
    priced = plan_deployment(compiled.deployment, compiled.stack_description, spec)
    if not (priced.plan.has_driver or run.status == PAUSED):
        raise no_driver
    earlier = Earlier(run.id, run.place.environment)
    return preflight.connect(spec, compiled, priced, modal=modal, earlier=earlier)
