"""A `per_step` run whose driver is gone -> the same run with another driver."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

from modalrun.errors import UsageError
from modalrun.modal_api.gateway import ModalGateway
from modalrun.observe.handle import RunHandle, RunObserver
from modalrun.plan.docker_settings import ImageRecipe
from modalrun.plan.image_recipe import Named
from modalrun.plan.planner import Plan, SandboxSpec, StepPlan, for_run
from modalrun.plan.resources import Resources
from modalrun.run.contract import TAKE_OVER
from modalrun.run.manifest import RunManifest, SandboxOrder
from modalrun.run.outcome import PAUSED, answer_commands
from modalrun.run.records import RunRecord
from modalrun.run.tags import MAX_TAG, TAG_PIPELINE, TAG_ROLE, fit
from modalrun.spec.run_spec import Target
from modalrun.submit.per_step import write
from modalrun.submit.recording import all_run_sandboxes, record_sandbox
from modalrun.submit.source_changes import MOST_FILES, compare, listing
from modalrun.submit.source_tree import copy, digest, hashes, source_files, stage
from modalrun.zenml_api.gateway import ZenMLGateway, zenml_gateway


def resume(
    run_id: str,
    observer: RunObserver,
    *,
    source_root: Path | None = None,
    zenml: ZenMLGateway | None = None,
    modal: ModalGateway | None = None,
) -> RunHandle | str:
    """Start another driver for a run whose driver has ended. Call it inside `zenml_session`.

    The new driver reads from ZenML which steps have ended and from Modal which still run, and
    continues with the rest. There can't be two drivers: the name of a run sandbox is unique while
    it runs.

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
        UsageError: It has no driver, or the source tree is missing or has changed.
        ModalrunError: ZenML or Modal can't be reached.
    """
    zenml, modal = zenml or zenml_gateway(), modal or ModalGateway()
    observer.phase("Reading the run")
    run = zenml.read_run(run_id)
    if run.finished:
        return f"The run {run.id} has ended: {run.status}. There is nothing to resume."
    order = zenml.read_manifest(run.id)
    if order is None and run.status == PAUSED:
        answer, resume_it = answer_commands(run.id, "pipeline")
        raise UsageError(
            f"The run {run.id} is paused: it waits for somebody's answer.",
            hint=f"Answer it with '{answer}', then '{resume_it}'.",
        )
    if order is None:
        raise UsageError(
            f"The run {run.id} has no driver that another one could replace.",
            hint="Only runs in 'mode: per_step' can be resumed. 'modalrun reconcile' settles the"
            " record of a run whose sandbox is gone.",
        )
    connection = modal.connect(
        cast("Target", order.target), credentials=zenml.credentials_of(run.id, order.target)
    )
    plan = _plan(order)
    spec = for_run(plan.run_sandbox, run.id)
    if (found := modal.find_running(connection, plan, spec)) is not None:
        return f"The run's driver is running, in the sandbox {found}. There is nothing to resume."
    earlier = _earlier(run, modal.find_last(connection, plan, spec))
    with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
        staged = Path(folder) / "source"
        _stage(order, source_root or Path(order.source_root), staged, observer)
        observer.phase("Creating the run sandbox")
        sandbox = modal.create_run_sandbox(
            connection,
            plan,
            spec,
            {**zenml.driver_environment(run.id), **connection.driver_environment()},
            staged,
            order=write(order, Path(folder)),
            earlier=earlier[-1] if earlier else None,
        )
    observer.say(f"Run {run.name}", "bold")
    observer.say(f"  id       {run.id}")
    observer.say(f"  sandbox  {sandbox.id} (another driver takes over)")
    observer.say("")
    return RunHandle(
        run_id=run.id,
        zenml_url=run.url,
        plan=plan,
        steps=tuple(step.name for step in order.steps),
        sandbox=sandbox,
        sandboxes=modal.sandboxes_of(connection, run.id, sandbox.app_id, sandbox.id),
        connection=connection,
        recording=record_sandbox(zenml, run.id, plan, sandbox, earlier=earlier),
        resumed=True,
    )


def _earlier(run: RunRecord, last: str | None) -> tuple[str, ...]:
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


def _stage(order: RunManifest, root: Path, folder: Path, observer: RunObserver) -> None:
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
        observer.say(
            f"note: not submitted with the run, left out: {listing(changes.new)}", "yellow"
        )


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
