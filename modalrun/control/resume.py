"""Resume a `per_step` run whose driver has ended, or a run that was paused."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from modalrun.errors import NotFoundError, UsageError
from modalrun.modal_api.gateway import ModalGateway
from modalrun.observe.handle import RunHandle, RunObserver
from modalrun.run.contract import TAKE_OVER
from modalrun.run.outcome import PAUSED
from modalrun.submit.recording import all_run_sandboxes, record_sandbox
from modalrun.submit.source_changes import listing
from modalrun.submit.staging import stage_again, write_manifest
from modalrun.zenml_api.gateway import ZenMLGateway, zenml_gateway


def resume(
    run_id: str,
    observer: RunObserver,
    *,
    source_root: Path | None = None,
    zenml: ZenMLGateway | None = None,
    modal: ModalGateway | None = None,
) -> RunHandle | str:
    """Give a run that can continue another run sandbox. Call it inside `zenml_session`.

    A paused run of a dynamic pipeline continues in either mode. For a `per_step` run whose driver
    has ended, the new driver reads from ZenML which steps have ended and from Modal which still
    run, and continues with the rest. There can't be two sandboxes: the name of a run sandbox is
    unique while it runs.

    Args:
        run_id: ZenML's run id.
        observer: Receives progress.
        source_root: Where the source tree is; None for where it was submitted from.
        zenml: Access to ZenML's records; None for the real one.
        modal: The functions on Modal; None for the real ones.

    Returns:
        The run with its new run sandbox; or a sentence on why there is nothing to resume.

    Raises:
        NotFoundError: There is no such run, or its app is gone.
        UsageError: It can't continue, or the source tree is missing or has changed.
        ModalrunError: ZenML or Modal can't be reached.
    """
    zenml, modal = zenml or zenml_gateway(), modal or ModalGateway()
    observer.phase("Reading the run")
    run = zenml.read_run(run_id)
    if run.finished:
        return f"The run {run.id} has ended: {run.status}. There is nothing to resume."
    manifest = zenml.read_manifest(run.id)
    paused = run.status == PAUSED
    if manifest is None or not (manifest.plan.has_driver or paused):
        raise UsageError(
            f"The run {run.id} has no driver that another one could replace.",
            hint="Only runs in 'mode: per_step', and runs that are paused, can be resumed."
            " 'modalrun reconcile' settles the record of a run whose sandbox is gone.",
        )
    plan = manifest.plan
    connection = modal.connect(plan.target, credentials=zenml.credentials_of(run.id, plan.target))
    spec = plan.sandbox_of_run(run.id)
    spec = replace(spec, env={**spec.env, TAKE_OVER: "1"})
    if paused and run.metadata is not None:
        # It is recorded as paused a moment before its sandbox ends.
        with contextlib.suppress(NotFoundError):
            modal.run_sandbox(connection, run.id, run.metadata).wait()
    if (found := modal.find_running(connection, plan, spec)) is not None:
        return f"The run sandbox {found} is running. There is nothing to resume."
    earlier = all_run_sandboxes(run.metadata)
    last = modal.find_last(connection, plan, spec)
    if last is not None and last not in earlier:
        # Its creator was interrupted before it could record it.
        earlier = (*earlier, last)
    with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
        staged = Path(folder) / "source"
        if new := stage_again(manifest.source, source_root or manifest.source.root, staged):
            observer.say(f"note: new files, which the run does not get: {listing(new)}", "yellow")
        observer.phase("Creating the run sandbox")
        secrets, file = zenml.driver_environment(run.id), None
        if plan.has_driver:
            secrets |= connection.driver_environment()
            file = write_manifest(manifest, Path(folder))
        sandbox = modal.create_run_sandbox(
            connection,
            plan,
            spec,
            secrets,
            staged,
            manifest=file,
            earlier=earlier[-1] if earlier else None,
        )
    observer.say(f"Run {run.name}", "bold")
    observer.say(f"  id       {run.id}")
    observer.say(f"  sandbox  {sandbox.id}{' (another driver takes over)' if file else ''}")
    observer.say("")
    return RunHandle(
        run_id=run.id,
        zenml_url=run.url,
        plan=plan,
        steps=tuple(step.name for step in plan.steps),
        sandbox=sandbox,
        sandboxes=modal.sandboxes_of(connection, run.id, sandbox.app_id, sandbox.id),
        connection=connection,
        recording=record_sandbox(zenml, run.id, plan, sandbox, earlier=earlier),
        resumed=True,
    )
