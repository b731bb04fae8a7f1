"""Run spec -> a run on Modal or the local Modal server, watched to its end."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.errors import Interrupted, ModalrunError, RunStoppedError, UnknownOutcomeError
from modalrun.localmodal import launcher
from modalrun.modal_api import Connection, RunningSandbox
from modalrun.observe import attach
from modalrun.observe.attach import OnInterrupt, RunHandle, RunObserver, StopRun
from modalrun.plan import pricing
from modalrun.plan.docker_settings import dockerignore
from modalrun.plan.model import Plan
from modalrun.plan.prices import LIST_PRICES
from modalrun.plan.stack import wrong_stack
from modalrun.run.manifest import Source
from modalrun.run.metadata import Announced, RunMetadata, to_metadata
from modalrun.run.outcome import Outcome, all_cached
from modalrun.run.run_plan import RunPlan
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import cancellation, prepare
from modalrun.submit.per_step import Dispatched, dispatch
from modalrun.submit.preload import PRELOAD
from modalrun.submit.source_changes import kept
from modalrun.submit.source_tree import digest, hashes, stage
from modalrun.util import interrupts
from modalrun.zenml_api import process

if TYPE_CHECKING:
    from modalrun.zenml_api.compile import Compiled
    from modalrun.zenml_api.runs import CreatedRun


@dataclass(frozen=True)
class Job:
    """A run that can be created: whatever could be found wrong before has been looked for.

    Attributes:
        compiled: The pipeline.
        plan: Its sandboxes.
        connection: To where they go.
        source_root: The folder that goes to them.
    """

    compiled: Compiled
    plan: Plan
    connection: Connection
    source_root: Path

    @property
    def steps(self) -> tuple[str, ...]:
        """All steps of the pipeline, parents before children; empty where only the run decides."""
        if self.plan.dynamic:
            return ()
        return tuple(step.name for step in self.compiled.deployment.steps)


def submit(
    spec: RunSpec,
    watcher: RunObserver,
    *,
    stop: StopRun,
    max_cost: Decimal | None = None,
    on_interrupt: OnInterrupt = "detach",
) -> Outcome:
    """Compile, plan and create a run; unless it is asynchronous, follow it to its end.

    Args:
        spec: The checked run spec.
        watcher: Is told what happens, and gets the run's output.
        stop: Ends a run by force.
        max_cost: The most that the run may cost in USD, by its ceiling.
        on_interrupt: What Ctrl-C and SIGTERM do once the run goes.

    Raises:
        ModalrunError: Of the class that says why the run was not created, or why its end is not
            known. A run that ends badly is an outcome, not an error.
        KeyboardInterrupt, Interrupted: Somebody left; what became of the run was said.
        BrokenPipeError: Nobody reads the output any more; the run goes on.
    """
    spec = prepare.with_source_root(spec)
    with process.zenml_process(spec.source_root):
        try:
            job = _prepare(spec, watcher, max_cost)
        except (KeyboardInterrupt, Interrupted):
            watcher.say("Interrupted; nothing was submitted.", "yellow")
            raise
        created: list[RunHandle] = []
        number: int | None = None
        try:
            with redirect_stdout(sys.stderr):
                from modalrun.zenml_api import runs

                finished = start(job, lambda: runs.create_run(job.compiled), watcher, created)
            interrupts.check()
        except (KeyboardInterrupt, Interrupted) as interruption:
            if not created:
                raise
            number = signal.SIGTERM if isinstance(interruption, Interrupted) else signal.SIGINT
            interrupts.forget()
        else:
            if finished is not None:
                return all_cached(finished.id, finished.url, job.steps)
        (run,) = created
        if job.plan.settings.synchronous or number is not None:
            return attach.follow(run, watcher, on_interrupt, stop=stop, interrupted=number)
        with interrupts.deferred(), redirect_stdout(sys.stderr):
            return attach.accepted(run)


def start(
    job: Job,
    make_run: Callable[[], CreatedRun],
    watcher: RunObserver,
    created: list[RunHandle],
    *,
    before: RunMetadata | None = None,
) -> CreatedRun | None:
    """Create the run in ZenML, then its sandbox; neither is left behind without the other.

    Args:
        job: What to run.
        make_run: Creates the run's record in ZenML, or finds the one that there is.
        watcher: Is told what happens.
        created: Gets what exists as soon as it does, for a caller that is interrupted.
        before: What is recorded of the run's sandbox before this one, which has ended.

    Returns:
        A run that ZenML's cache has completed, which needs no sandbox; None for any other.

    Raises:
        ModalrunError: Of the class that says why the run was not created.
    """
    from modalrun.zenml_api import image_builds, stopping

    compiled, connection = job.compiled, job.connection
    resolved, credentials = image_builds.resolved_plan(job.plan, compiled.snapshot, compiled.stack)
    plan: RunPlan = resolved
    watcher.phase("Creating the run, its image and its sandbox")
    with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
        ignored = dockerignore(compiled.deployment.docker)
        staged = Path(folder) / "source"
        stage(job.source_root, staged, dockerignore=ignored)
        files = hashes(staged)
        source = Source(job.source_root, digest(files), kept(files), ignored)
        run: CreatedRun | None = None
        try:
            with interrupts.deferred():
                run = make_run()
            watcher.say(f"Run {run.name}", "bold")
            watcher.say(f"  id       {run.id}")
            watcher.say(f"  stack    {compiled.stack.name}")
            if run.finished:
                # There is no sandbox to be known by, but it is one of ours.
                stopping.announce(run.id, _announced(plan))
                return run
            with cancellation.watched(run.id, _announced(plan)):
                ready = dispatch(
                    connection,
                    compiled,
                    resolved,
                    run,
                    source=source,
                    folder=Path(folder),
                    staged=staged,
                    registry=credentials,
                )
                plan = ready.plan
                sandbox = connection.create_run_sandbox(
                    plan,
                    plan.sandbox_of_run(run.id),
                    ready.secrets,
                    staged,
                    manifest=ready.manifest_file,
                    earlier=before.sandbox_id if before else None,
                    say=lambda text: watcher.say(f"  {text}", "yellow"),
                )
                submitted = _submitted(
                    run, ready, job.steps, sandbox, connection, earlier=run_sandboxes(before)
                )
                created.append(replace(submitted, resumed=before is not None))
        except BaseException as error:
            if run is not None and not created:
                _give_up(connection, plan, run.id, error, watcher)
            elif run is not None and isinstance(error, RunStoppedError):
                created[0].sandboxes.end()
            raise
    watcher.say(f"  sandbox  {sandbox.id} ({_describe(plan, sandbox)})")
    watcher.say("")
    return None


def _submitted(
    run: CreatedRun,
    ready: Dispatched,
    steps: tuple[str, ...],
    sandbox: RunningSandbox,
    connection: Connection,
    *,
    earlier: Sequence[str],
) -> RunHandle:
    """A run with its sandbox; that it has one is stored in ZenML meanwhile."""
    from modalrun.zenml_api import runs

    metadata = {**to_metadata(run_facts(ready.plan, sandbox, earlier)), **ready.metadata}

    def record() -> None:
        if runs.record_metadata(run.id, metadata):
            # Whoever stopped it could not end what was not there yet.
            with contextlib.suppress(ModalrunError):
                submitted.sandboxes.end()

    recording = threading.Thread(target=record, daemon=True)
    submitted = RunHandle(
        run_id=run.id,
        zenml_url=run.url,
        plan=ready.plan,
        steps=steps,
        sandbox=sandbox,
        connection=connection,
        recording=recording,
    )
    recording.start()
    return submitted


def _prepare(spec: RunSpec, watcher: RunObserver, max_cost: Decimal | None) -> Job:
    watcher.phase(f"Compiling {spec.pipeline}" if spec.pipeline else "Reading the deployment")
    if spec.target == "local":
        # The server takes as long to start as ZenML to import; errors show up where it is used.
        threading.Thread(target=warm_up_server, daemon=True).start()
    return check(spec, prepare.load(spec), watcher, max_cost)


def check(
    spec: RunSpec, compiled: Compiled, watcher: RunObserver, max_cost: Decimal | None = None
) -> Job:
    """Find everything that can be found wrong before anything is created.

    Args:
        spec: The run spec.
        compiled: Its pipeline.
        watcher: Is told what is worth knowing.
        max_cost: The most that the run may cost in USD.

    Raises:
        ModalrunError: Of the class that says why the run can't be created.
    """
    prepared = prepare.prepared(compiled.deployment, compiled.facts, spec)
    plan = prepared.plan
    for note in plan.notes:
        watcher.say(f"note: {note}", "yellow")
    if max_cost is not None:
        pricing.check_limit(pricing.cost(plan, LIST_PRICES), max_cost)
    connection = Connection(spec.target, credentials=compiled.credentials)
    if prepared.problems:
        raise wrong_stack(prepared.stack, prepared.problems)
    connection.check_names(plan)
    if plan.settings.workspace is not None:
        connection.check_workspace(plan.settings.workspace, plan.origins["workspace"].source)
    return Job(compiled, plan, connection, spec.source_root)


def warm_up_server() -> None:
    """Start the local Modal server, with what its sandboxes import in memory."""
    with contextlib.suppress(ModalrunError):
        launcher.preload(launcher.ensure_running(), PRELOAD)


def _give_up(
    connection: Connection, plan: RunPlan, run_id: str, error: BaseException, watcher: RunObserver
) -> None:
    """The submission failed or was interrupted: leave no run and no sandbox that looks alive."""
    from modalrun.zenml_api import runs, stopping

    if isinstance(error, UnknownOutcomeError):
        return
    withdrawn = isinstance(error, RunStoppedError)
    if withdrawn or not isinstance(error, ModalrunError):
        # The interruption may have come between Modal's creating the sandbox and its answer.
        with contextlib.suppress(ModalrunError):
            connection.discard(plan, plan.sandbox_of_run(run_id))
    if withdrawn:
        stopping.announce(run_id, _announced(plan, withdrawn=True))
    elif not isinstance(error, ModalrunError):
        watcher.say(f"The run {run_id} is given up; nothing of it is left running.", "yellow")
    why = str(error) or "the submission was interrupted"
    runs.finalize_run(run_id, f"The run sandbox was not created: {why}")


def _announced(plan: RunPlan, *, withdrawn: bool = False) -> Announced:
    return Announced(
        plan.target, plan.settings.app_name, plan.settings.modal_environment, withdrawn
    )


def run_sandboxes(facts: RunMetadata | None) -> tuple[str, ...]:
    """The ids of all run sandboxes that a record names, oldest first."""
    return (*facts.earlier_sandboxes, facts.sandbox_id) if facts is not None else ()


def run_facts(plan: RunPlan, sandbox: RunningSandbox, earlier: Sequence[str] = ()) -> RunMetadata:
    """What ZenML keeps with the run, so that others find its sandbox.

    Args:
        plan: The run's plan.
        sandbox: Its run sandbox.
        earlier: Modal's ids of those that it has had before, oldest first.
    """
    spec = plan.run_sandbox
    return RunMetadata(
        target=plan.target,
        mode=plan.settings.mode,
        app=plan.settings.app_name,
        app_id=sandbox.app_id,
        sandbox_id=sandbox.id,
        timeout=spec.timeout,
        environment=plan.settings.modal_environment,
        sandbox_url=sandbox.url,
        gpu=sandbox.gpu,
        cpu=spec.resources.cpu,
        memory=spec.resources.memory,
        regions=",".join(spec.regions) or None,
        workspace=plan.settings.workspace,
        earlier=",".join(one for one in earlier if one != sandbox.id) or None,
    )


def _describe(plan: RunPlan, sandbox: RunningSandbox) -> str:
    resources = plan.run_sandbox.resources
    parts = [f"app {plan.settings.app_name}", f"target {plan.target}"]
    environment = plan.settings.modal_environment
    parts += [f"environment {environment}"] if environment else []
    parts += [f"gpu {sandbox.gpu}"] if sandbox.gpu else []
    parts += [f"cpu {resources.cpu:g}"] if resources.cpu else []
    parts += [f"memory {resources.memory} MiB"] if resources.memory else []
    regions, cloud = plan.run_sandbox.regions, plan.run_sandbox.cloud
    parts += [f"region {' or '.join(regions)}"] if regions else []
    parts += [f"cloud {cloud}"] if cloud else []
    return ", ".join(parts)
