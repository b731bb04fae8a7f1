"""Run spec -> a run on Modal or the local Modal server, watched to its end."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from contextlib import redirect_stdout
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modalrun import interrupts, preparation, pricing
from modalrun import plan as planning
from modalrun.deployment import Deployment
from modalrun.dispatch import dispatch
from modalrun.errors import (
    ConnectionLostError,
    Interrupted,
    ModalrunError,
    UnknownOutcomeError,
)
from modalrun.facts import RunFacts, to_metadata
from modalrun.image import dockerignore
from modalrun.localmodal import launcher
from modalrun.modal_api import Connection, RunningSandbox, SandboxEnd
from modalrun.ordering import Source
from modalrun.outcome import Outcome, StepRecord, verdict
from modalrun.plan import Plan
from modalrun.planning import account_prices
from modalrun.prices import LIST_PRICES
from modalrun.source_tree import digest, stage
from modalrun.spec import RunSpec
from modalrun.stack_facts import wrong_stack

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling import Compiled
    from modalrun.zenml_api.runs import CreatedRun


class Watcher(Protocol):
    """Who looks on while a run goes."""

    def phase(self, text: str) -> None:
        """What is being waited for now, until something else is shown."""

    def say(self, text: str, style: str | None = None) -> None:
        """A line of talk."""

    def output(self, source: str, text: str) -> None:
        """A piece of the run's output."""


def submit(spec: RunSpec, watcher: Watcher, *, max_cost: Decimal | None = None) -> Outcome:
    """Compile, plan and create a run, watch it to its end, and settle its record.

    Args:
        spec: The checked run spec.
        watcher: Is told what happens, and gets the run's output.
        max_cost: The most that the run may cost in USD, by its ceiling.

    Raises:
        ModalrunError: Of the class that says why the run was not created, or why its end is not
            known. A run that ends badly is an outcome, not an error.
    """
    spec = preparation.with_source_root(spec)
    with preparation.zenml_process(spec.source_root):
        try:
            compiled, plan, connection = _prepare(spec, watcher, max_cost)
        except (KeyboardInterrupt, Interrupted):
            watcher.say("Interrupted; nothing was submitted.", "yellow")
            raise
        created: list[tuple[str, RunningSandbox]] = []
        try:
            with redirect_stdout(sys.stderr):
                run_id, sandbox = _create(
                    spec, compiled, plan, connection, watcher, created=created
                )
            interrupts.check()
            watcher.phase("Waiting for the first step")
            end = sandbox.watch(watcher.output)
        except (KeyboardInterrupt, Interrupted):
            for run_id, sandbox in created:
                watcher.say("")
                watcher.say(f"Detached. The run {run_id} goes on in its sandbox.", "yellow")
                for label, command in _commands(plan, sandbox):
                    watcher.say(f"  {label:<8} {command}")
            raise
        with redirect_stdout(sys.stderr):
            return _outcome(run_id, compiled.deployment, plan, sandbox, end)


def _create(
    spec: RunSpec,
    compiled: Compiled,
    plan: Plan,
    connection: Connection,
    watcher: Watcher,
    *,
    created: list[tuple[str, RunningSandbox]],
) -> tuple[str, RunningSandbox]:
    """Create the run in ZenML, then its sandbox; neither is left behind without the other.

    `created` gets what is returned as soon as it exists, for a caller that is interrupted.
    """
    from modalrun.zenml_api import registry, runs

    plan, credentials = registry.resolved_plan(plan, compiled.snapshot, compiled.stack)
    watcher.phase("Creating the run, its image and its sandbox")
    with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
        ignored = dockerignore(compiled.deployment.docker)
        staged = Path(folder) / "source"
        stage(spec.source_root, staged, dockerignore=ignored)
        run: CreatedRun | None = None
        try:
            with interrupts.deferred():
                run = runs.create_run(compiled)
            watcher.say(f"Run {run.name}", "bold")
            watcher.say(f"  id       {run.id}")
            ready = dispatch(
                connection,
                compiled,
                plan,
                run,
                Source(spec.source_root, digest(staged), ignored),
                Path(folder),
                staged=staged,
                registry=credentials,
            )
            plan = ready.plan
            sandbox = connection.create_run_sandbox(
                plan,
                planning.for_run(plan.run_sandbox, run.id),
                ready.secrets,
                staged,
                registry=credentials,
                order=ready.order_file,
                say=lambda text: watcher.say(f"  {text}", "yellow"),
            )
            created.append((run.id, sandbox))
        except BaseException as error:
            if run is not None and not created:
                _give_up(connection, plan, run.id, error, watcher)
            raise
    metadata = {**to_metadata(_facts(plan, sandbox)), **ready.metadata}
    threading.Thread(target=runs.record_metadata, args=(run.id, metadata), daemon=True).start()
    watcher.say(f"  sandbox  {sandbox.id} ({_describe(plan, sandbox)})")
    watcher.say("")
    return run.id, sandbox


def _prepare(
    spec: RunSpec, watcher: Watcher, max_cost: Decimal | None
) -> tuple[Compiled, Plan, Connection]:
    """Everything that can be found wrong before anything is created."""
    watcher.phase(f"Compiling {spec.pipeline}" if spec.pipeline else "Reading the deployment")
    if spec.target == "local":
        # The server takes as long to start as ZenML to import; errors show up where it is used.
        threading.Thread(target=_warm_up_server, daemon=True).start()
    compiled = preparation.load(spec)
    prepared = preparation.prepared(compiled.deployment, compiled.facts, spec)
    plan = prepared.plan
    preparation.check_runnable(plan)
    for note in plan.notes:
        watcher.say(f"note: {note}", "yellow")
    if max_cost is not None and spec.target == "local":
        pricing.check_limit(pricing.cost(plan, LIST_PRICES), max_cost)
    connection = Connection(spec.target, credentials=compiled.credentials)
    if prepared.problems:
        raise wrong_stack(prepared.stack, prepared.problems)
    if max_cost is not None and spec.target == "modal":
        pricing.check_limit(pricing.cost(plan, account_prices(connection.rates())), max_cost)
    connection.check_names(plan)
    if plan.workspace is not None:
        connection.check_workspace(plan.workspace, plan.origins["workspace"].source)
    return compiled, plan, connection


def _warm_up_server() -> None:
    try:
        launcher.ensure_running()
    except ModalrunError:
        return


def _give_up(
    connection: Connection, plan: Plan, run_id: str, error: BaseException, watcher: Watcher
) -> None:
    """The submission failed or was interrupted: leave no run and no sandbox that looks alive."""
    from modalrun.zenml_api import runs

    if isinstance(error, UnknownOutcomeError):
        return
    if not isinstance(error, ModalrunError):
        # Ctrl-C may have come between Modal's creating the sandbox and its answer.
        with contextlib.suppress(ModalrunError):
            connection.discard(plan, planning.for_run(plan.run_sandbox, run_id))
        watcher.say(f"The run {run_id} is given up; nothing of it is left running.", "yellow")
    why = str(error) or "the submission was interrupted"
    runs.finalize_run(run_id, f"The run sandbox was not created: {why}")


def _facts(plan: Plan, sandbox: RunningSandbox) -> RunFacts:
    """What ZenML keeps with the run, so that others find its sandbox."""
    spec = plan.run_sandbox
    return RunFacts(
        target=plan.target,
        mode=plan.mode,
        app=plan.app_name,
        app_id=sandbox.app_id,
        sandbox_id=sandbox.id,
        timeout=spec.timeout,
        environment=plan.environment,
        sandbox_url=sandbox.url,
        gpu=sandbox.gpu,
        cpu=spec.resources.cpu,
        memory=spec.resources.memory,
        regions=",".join(spec.regions) or None,
    )


def _describe(plan: Plan, sandbox: RunningSandbox) -> str:
    resources = plan.run_sandbox.resources
    parts = [f"app {plan.app_name}", f"target {plan.target}"]
    parts += [f"environment {plan.environment}"] if plan.environment else []
    parts += [f"gpu {sandbox.gpu}"] if sandbox.gpu else []
    parts += [f"cpu {resources.cpu:g}"] if resources.cpu else []
    parts += [f"memory {resources.memory} MiB"] if resources.memory else []
    regions, cloud = plan.run_sandbox.regions, plan.run_sandbox.cloud
    parts += [f"region {' or '.join(regions)}"] if regions else []
    parts += [f"cloud {cloud}"] if cloud else []
    return ", ".join(parts)


def _outcome(
    run_id: str, deployment: Deployment, plan: Plan, sandbox: RunningSandbox, end: SandboxEnd
) -> Outcome:
    from modalrun.zenml_api import runs

    try:
        # A sandbox that was killed as a whole could not record its own end.
        runs.finalize_run(run_id, f"The run sandbox ended ({end.kind}, exit code {end.exit_code}).")
        record = runs.read_run(run_id)
    except ConnectionLostError as error:
        raise ConnectionLostError(
            f"The run sandbox ended ({end.kind}), but ZenML can't be asked how: {error.message}",
            hint=f"Run 'zenml pipeline runs list' when the server is back; the run is {run_id}.",
        ) from error
    failed = [step.name for step in record.steps if step.status == "failed"]
    code, headline = verdict(
        end.kind, end.exit_code, record.status, failed, plan.run_sandbox.timeout
    )
    details = [("run", run_id)]
    if record.url:
        details.append(("zenml", record.url))
    if sandbox.url:
        details.append(("modal", sandbox.url))
    details.append(_commands(plan, sandbox)[0])
    if end.kind == "timed_out":
        details.append(("timeout", "the setting 'timeout' counts from the start of the sandbox"))
    recorded = {step.name: step for step in record.steps}
    steps = tuple(
        recorded.get(step.name) or StepRecord(step.name, "not run") for step in deployment.steps
    )
    return Outcome(code, headline, tuple(details), steps)


def _commands(plan: Plan, sandbox: RunningSandbox) -> list[tuple[str, str]]:
    """The commands that show more of a run, and that end it."""
    # `modal container stop` takes the ids of tasks only, which the SDK keeps to itself.
    stop = (
        f"{sys.executable} -c \"import modal; modal.Sandbox.from_id('{sandbox.id}').terminate()\""
    )
    if plan.target == "local":
        return [
            ("logs", f"modalrun local logs {sandbox.id}"),
            ("end it", f'eval "$(modalrun local env)" && {stop}'),
        ]
    return [("logs", f"modal container logs {sandbox.id}"), ("end it", stop)]
