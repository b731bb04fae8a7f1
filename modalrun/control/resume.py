"""A `per_step` run whose driver is gone -> the same run with another driver."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from modalrun.errors import UsageError
from modalrun.modal_api import Connection, run_sandboxes
from modalrun.modal_api.termination import RunSandboxes
from modalrun.observe.attach import RunHandle, RunObserver
from modalrun.plan.docker_settings import ImageRecipe
from modalrun.plan.image_recipe import Named
from modalrun.plan.planner import Plan, SandboxSpec, StepPlan, for_run
from modalrun.plan.resources import Resources
from modalrun.run.contract import TAKE_OVER
from modalrun.run.manifest import RunManifest, SandboxOrder
from modalrun.run.outcome import PAUSED, answers
from modalrun.run.tags import MAX_TAG, TAG_PIPELINE, TAG_ROLE, fit
from modalrun.spec.run_spec import Target
from modalrun.submit.per_step import write
from modalrun.submit.recording import all_run_sandboxes, record_sandbox
from modalrun.submit.source_changes import MOST_FILES, compare, listing
from modalrun.submit.source_tree import copy, digest, hashes, source_files, stage
from modalrun.zenml_api.gateway import zenml_gateway

if TYPE_CHECKING:
    from modalrun.zenml_api.records.run_access import ResumableRun


def resume(
    run_id: str, watcher: RunObserver, *, source_root: Path | None = None
) -> RunHandle | str:
    """Give a run another driver. To be called where ZenML is used.

    The new driver takes from ZenML what is done and failed, and from Modal what still runs; it goes
    on with the rest. There can't be two: the name of a run sandbox is unique while it runs.

    Args:
        run_id: ZenML's run id.
        watcher: Is told what happens.
        source_root: Where the source tree is, if not where it was.

    Returns:
        The run with its new run sandbox; or, where there is nothing to resume, why, in a sentence.

    Raises:
        NotFoundError: There is no such run, or its app is gone.
        UsageError: It has no driver, or the source tree is not there or has changed.
        ModalrunError: ZenML or Modal can't be asked.
    """
    from modalrun.zenml_api.records import run_access

    watcher.phase("Reading the run")
    run = run_access.read_resumable(run_id)
    if run.finished:
        return f"The run {run.id} is over: {run.status}. There is nothing to resume."
    if run.order is None and run.status == PAUSED:
        answer, resume_it = answers(run.id, "pipeline")
        raise UsageError(
            f"The run {run.id} is paused: it waits for somebody's answer.",
            hint=f"Answer it with '{answer}', then '{resume_it}'.",
        )
    if run.order is None:
        raise UsageError(
            f"The run {run.id} has no driver that another one could replace.",
            hint="Only runs in 'mode: per_step' can be resumed. 'modalrun reconcile' settles the"
            " record of a run whose sandbox is gone.",
        )
    order = run.order
    connection = Connection(cast("Target", order.target), credentials=run.credentials)
    plan = _plan(order)
    spec = for_run(plan.run_sandbox, run.id)
    if (found := run_sandboxes.find_running(connection, plan, spec)) is not None:
        return f"The run's driver is running, in the sandbox {found}. There is nothing to resume."
    earlier = _earlier(run, run_sandboxes.find_last(connection, plan, spec))
    with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
        staged = Path(folder) / "source"
        _stage(order, source_root or Path(order.source_root), staged, watcher)
        watcher.phase("Creating the run sandbox")
        sandbox = run_sandboxes.create(
            connection,
            plan,
            spec,
            {**run.environment, **connection.driver_environment()},
            staged,
            order=write(order, Path(folder)),
            earlier=earlier[-1] if earlier else None,
        )
    watcher.say(f"Run {run.name}", "bold")
    watcher.say(f"  id       {run.id}")
    watcher.say(f"  sandbox  {sandbox.id} (another driver takes over)")
    watcher.say("")
    return RunHandle(
        run_id=run.id,
        zenml_url=run.url,
        plan=plan,
        steps=tuple(step.name for step in order.steps),
        sandbox=sandbox,
        sandboxes=RunSandboxes(connection, run.id, sandbox.app_id, sandbox.id),
        connection=connection,
        recording=record_sandbox(zenml_gateway(), run.id, plan, sandbox, earlier=earlier),
        resumed=True,
    )


def _earlier(run: ResumableRun, last: str | None) -> tuple[str, ...]:
    """The run sandboxes that a run has had, oldest first.

    The last one is not on record where whoever created it was interrupted; only Modal's second
    backend can tell of it once it has ended.
    """
    recorded = all_run_sandboxes(run.metadata)
    return recorded if last is None or last in recorded else (*recorded, last)


def _plan(order: RunManifest) -> Plan:
    """The plan as far as it matters here: the run sandbox, and what the others cost."""
    driver = order.driver
    return Plan(
        target=cast("Target", order.target),
        environment=order.environment,
        app_name=order.app,
        pipeline=order.pipeline,
        mode="per_step",
        run_sandbox=replace(
            _spec(driver),
            env={**driver.env, TAKE_OVER: "1"},
            tags={TAG_ROLE: "run", TAG_PIPELINE: fit(order.pipeline, MAX_TAG)},
        ),
        steps=tuple(
            StepPlan(step.name, step.upstream, step.retries, _spec(order.sandboxes[step.sandbox]))
            for step in order.steps
        ),
    )


def _spec(order: SandboxOrder) -> SandboxSpec:
    """The sandbox spec that an order was made of."""
    return SandboxSpec(
        command=order.command,
        image=ImageRecipe(base=Named(order.image)),
        resources=Resources(
            gpu=next(iter(order.gpus), None),
            cpu=order.cpu,
            memory=order.memory,
            cpu_limit=order.cpu_limit,
            memory_limit=order.memory_limit,
            other_gpus=order.gpus[1:],
        ),
        timeout=order.timeout,
        cloud=order.cloud,
        regions=order.regions,
        env=order.env,
        secrets=order.secrets,
        volumes=order.volumes,
        workdir=order.workdir,
    )


def _stage(order: RunManifest, root: Path, folder: Path, watcher: RunObserver) -> None:
    """A copy of the files that the run was submitted with, which have to be what they were."""
    if not root.is_dir():
        raise UsageError(
            f"The run's source tree {root} is not on this machine.",
            hint="Check out what was submitted, and name its folder with '--source-root'.",
        )
    if not order.source_files:
        _stage_all(order, root, folder)
        return
    paths = [Path(path) for path in order.source_files]
    copy(root, folder, (path for path in paths if (root / path).is_file()))
    found = hashes(folder) if folder.is_dir() else {}
    present: list[str] = []
    # What has come since is only talked about: no reason to refuse what can be resumed.
    with contextlib.suppress(UsageError):
        files = source_files(root, dockerignore=order.dockerignore, bounded=False)
        present = [path.as_posix() for path in files]
    changes = compare(order.source_files, found, present)
    if changes.changed or changes.missing:
        raise UsageError(
            f"The source tree {root} has changed since the run was submitted: {changes}. The rest"
            " of the run would not fit to what is done.",
            hint="Restore what was changed or is missing, or check out what was submitted and name"
            " its folder with '--source-root'. New files are no obstacle.",
        )
    if changes.new:
        watcher.say(f"note: not submitted with the run, left out: {listing(changes.new)}", "yellow")


def _stage_all(order: RunManifest, root: Path, folder: Path) -> None:
    """The whole source tree, where only the hash of all its files is known."""
    stage(root, folder, dockerignore=order.dockerignore)
    if digest(hashes(folder)) != order.source_hash:
        raise UsageError(
            f"The source tree {root} has changed since the run was submitted; the rest of the run"
            f" would not fit to what is done. Which files differ is not known: of more than"
            f" {MOST_FILES:,} files only the hash of all is kept.",
            hint="Restore the files and remove new ones ('git status' names them), or check out"
            " what was submitted and name its folder with '--source-root'.",
        )
