"""Create the run sandbox of a run that is submitted or resumed, and record it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from modalrun.driver.graph.step_attempts import StepAttempts
from modalrun.errors import NotFoundError, UnknownOutcomeError
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.observe.handle import RunHandle, RunObserver
from modalrun.plan.isolated_step import layers_as_json
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.contract import TAKE_OVER
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import RunMetadata
from modalrun.run.records import App, CreatedRun
from modalrun.run.run_plan import RunPlan
from modalrun.run.step_order import worker_of
from modalrun.submit.preflight import Job
from modalrun.submit.recording import Announcer, record_sandbox
from modalrun.submit.source.left_behind import left_behind
from modalrun.submit.source.staging import write_manifest
from modalrun.util import timeline
from modalrun.util.background import in_background
from modalrun.zenml_api.gateway import ZenMLGateway

CREATION_GRACE_SECONDS = 3.0
"""How long a signal waits for a sandbox that is being created, or for the end of the wait for a
place for it."""

MOST_AHEAD = 10
"""How many first steps may begin before their driver; more would delay the submission."""


def create_run_sandbox(
    job: Job,
    plan: RunPlan,
    run: CreatedRun,
    staged: Path,
    *,
    observer: RunObserver,
    zenml: ZenMLGateway,
    unanswered: threading.Event | None = None,
    ended: Collection[str] = (),
    earlier: Sequence[str] = (),
    resumes: Sequence[float] = (),
    take_over: bool = False,
) -> RunHandle:
    """Create the run sandbox of a run; a driver in it gets the run manifest.

    Args:
        run: ZenML's record of it.
        staged: The source tree; the manifest is written beside it.
        unanswered: Set while Modal has been asked for the sandbox and has not answered.
        ended: The steps that have ended before.
        earlier: Modal's ids of the run sandboxes before this one, oldest first.
        resumes: When Modal was asked for those after the first, in seconds since the epoch.
        take_over: Whether a driver continues with what an earlier one has left.

    Raises:
        ModalrunError: As for `modal_api.run_sandboxes.create`.
    """
    spec = plan.sandbox_of_run(run.id)
    if take_over:
        spec = replace(spec, env={**spec.env, TAKE_OVER: "1"})
    secrets, file = run.environment, None
    if plan.has_driver:
        secrets = {**secrets, **job.connection.driver_environment(plan.settings.modal_environment)}
        # The names of step sandboxes may come again in a run that is resumed.
        ahead = () if take_over or earlier else _first_steps(plan, run)
        file = write_manifest(_manifest(job, plan, run, ahead), staged.parent)
    unanswered = unanswered or threading.Event()
    given_up = threading.Event()
    announcer = Announcer(zenml, run.id)

    def show_wait(wait: CapacityWait | None) -> None:
        observer.waiting(wait)
        announcer.announce(wait)

    def create() -> RunningSandbox:
        with _asking(unanswered):
            return job.modal.create_run_sandbox(
                job.connection,
                plan,
                spec,
                secrets,
                staged,
                manifest=file,
                earlier=earlier[-1] if earlier else None,
                given_up=given_up,
                on_wait=show_wait,
                say=lambda text: observer.say(f"  {text}", "yellow"),
            )

    requested = time.time()
    sandbox = in_background(create, grace=CREATION_GRACE_SECONDS, give_up=given_up.set)
    sandboxes = job.modal.sandboxes_of(
        job.connection,
        run.id,
        sandbox.app_id,
        apps=[App(plan.settings.app_name, plan.settings.modal_environment)],
    )
    recording = record_sandbox(
        zenml,
        run.id,
        plan,
        sandbox,
        root=job.source.root,
        requested=requested,
        created=time.time(),
        earlier=earlier,
        resumes=resumes,
        # A run that is resumed may have been asked to stop.
        end_if_stopped=None if take_over else sandboxes,
    )
    return RunHandle(
        run_id=run.id,
        zenml_url=run.url,
        plan=plan,
        steps=job.steps,
        sandbox=sandbox,
        sandboxes=sandboxes,
        connection=job.connection,
        recording=recording,
        resumed=take_over or bool(earlier),
        ended=frozenset(ended),
        source_root=job.source.root,
        left_behind=partial(left_behind, job.source, plan.target),
    )


def create_ahead(job: Job, plan: RunPlan, run: CreatedRun, staged: Path) -> None:
    """Create the sandboxes of the first steps, beside that of the driver, which adopts them.

    What can't be created now is left to the driver. Call it after `create_run_sandbox`.

    Args:
        job: The run.
        plan: Its plan, with built images.
        run: ZenML's record of it.
        staged: The source tree.
    """
    ahead = _first_steps(plan, run)
    if not ahead:
        return
    manifest = _manifest(job, plan, run, ahead)
    specs = [
        worker_of(StepAttempts(manifest, step.name, step.sandbox).next_spec(), plan)
        for step in plan.steps
        if step.name in ahead and step.sandbox
    ]
    with contextlib.suppress(Exception), timeline.phase("create the first steps' sandboxes"):
        in_background(
            lambda: job.modal.create_ahead(job.connection, plan, specs, run.environment, staged)
        )


def wait_for_sandbox(job: Job, run_id: str, metadata: RunMetadata) -> None:
    """Wait for the end of a run sandbox that is about to end, if there is one.

    A run is recorded as paused or failed a moment before. The sandbox is found by its name: others
    can change the id in ZenML's metadata.
    """
    found = job.modal.find_running(job.connection, job.plan, job.plan.sandbox_of_run(run_id))
    if found is not None:
        with contextlib.suppress(NotFoundError):
            named = replace(metadata, sandbox_id=found)
            job.modal.run_sandbox(job.connection, run_id, named).wait()


@contextlib.contextmanager
def _asking(unanswered: threading.Event) -> Iterator[None]:
    """Set a flag until a question is answered; it stays set where the answer was lost."""
    unanswered.set()
    try:
        yield
    except UnknownOutcomeError:
        raise
    except BaseException:
        unanswered.clear()
        raise
    unanswered.clear()


def _first_steps(plan: RunPlan, run: CreatedRun) -> tuple[str, ...]:
    """Return the steps that can begin before there is a driver: their turn has come.

    Only in workers, which a driver can adopt. A GPU may have to be waited for, and ZenML's cache
    to be asked, which the driver does.
    """
    settings, done = plan.settings, run.done.keys()
    if not (plan.has_driver and settings.keep_warm):
        return ()
    ready = [step for step in plan.steps if step.name not in done and done >= {*step.upstream}]
    most = min(settings.max_parallelism or MOST_AHEAD, MOST_AHEAD)
    return tuple(
        step.name
        for step in ready[:most]
        if step.sandbox and not step.sandbox.resources.gpus and not (step.caches and step.upstream)
    )


def _manifest(job: Job, plan: RunPlan, run: CreatedRun, ahead: tuple[str, ...]) -> RunManifest:
    compiled = job.compiled
    return RunManifest(
        run_id=run.id,
        plan=plan,
        failure_mode=compiled.deployment.failure_mode,
        variables=tuple(sorted(run.environment)),
        ahead=ahead,
        done=run.done,
        docker=compiled.docker_digest if plan.dynamic else "",
        layers=layers_as_json(compiled.deployment.layers) if plan.dynamic else {},
    )
