"""Runs that ZenML submits: the door to the engine for a stack with a registered orchestrator.

`modalrun submit` is the other door. What differs here: ZenML has compiled and stored the deployment
and made the run, the process is the user's (a script, a notebook, ZenML's own command), and errors
are raised for whoever called the pipeline.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun import errors
from modalrun.control import reconcile
from modalrun.control import stop as stopping
from modalrun.modal_api import Connection, RunningSandbox
from modalrun.observe import attach
from modalrun.observe import status as runs
from modalrun.observe.handle import RunHandle
from modalrun.observe.interrupt_prompt import OnInterrupt
from modalrun.observe.outcome import accepted
from modalrun.output import reporter
from modalrun.output.reporter import Reporter
from modalrun.plan.stack import problems_on_modal, wrong_stack
from modalrun.run import sandbox_exit
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import RunMetadata, from_metadata
from modalrun.run.outcome import Outcome
from modalrun.run.status import LOST
from modalrun.spec.run_spec import RunSpec, Target
from modalrun.spec.yaml_source import YamlSource
from modalrun.submit import preflight
from modalrun.submit.preflight import Job
from modalrun.submit.submission import Submission
from modalrun.util import compatibility, interrupts
from modalrun.zenml_api.gateway import zenml_gateway

if TYPE_CHECKING:
    from zenml.enums import ExecutionStatus
    from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
    from zenml.stack import Stack

logger = logging.getLogger(__name__)


def validate(stack: Stack) -> tuple[bool, str]:
    """Whether a stack can be used on Modal's cloud, and everything that is in the way."""
    from modalrun.zenml_api.stacks import describe_stack

    described = describe_stack(stack)
    problems = problems_on_modal(described)
    if not problems:
        return True, ""
    error = wrong_stack(described, problems)
    command = f"zenml orchestrator update {stack.orchestrator.name} --target=local"
    return False, (
        f"{error.message}\nUse remote components; or, for the local Modal server, an orchestrator"
        f" with that target: '{command}'."
    )


def submit(
    target: Target,
    snapshot: PipelineSnapshotResponse,
    environment: Mapping[str, str],
    run: PipelineRunResponse | None,
) -> Callable[[], None] | None:
    """Create the sandbox of a run that ZenML has made.

    Args:
        target: Where it goes.
        snapshot: The deployment as ZenML stores it.
        environment: The variables by which a sandbox reaches ZenML.
        run: The placeholder run.

    Returns:
        What follows the run to its end; None for a run that nobody is to wait for.

    Raises:
        ModalrunError: As for `submission.submit`; its text says what to do next.
    """
    compatibility.require()
    if snapshot.schedule is not None or run is None:
        raise errors.UsageError(
            "Scheduled pipelines are not supported: a run on Modal is started by whoever submits"
            " it. Remove the schedule, and let a scheduler (cron, CI) run the pipeline."
        )
    shown = reporter()
    with ExitStack() as stack:
        stack.enter_context(_same_variables())
        stack.enter_context(_left_open(run))
        with _worded(), _shown_until_started(shown), interrupts.installed():
            job = _job(target, str(snapshot.id), _source_root(run), shown)
            from modalrun.zenml_api.records.runs import existing_run

            submission = Submission(
                job, shown, zenml_gateway(), previous=_ended_before(run, job.connection)
            )
            try:
                submission.create(lambda: existing_run(job.compiled, str(run.id), environment))
                interrupts.check()
            except (KeyboardInterrupt, errors.Interrupted):
                # ZenML takes this for a run that was not submitted.
                if submission.handle is not None:
                    stopping.by_force(str(run.id), submission.handle.sandboxes)
                raise
        submitted = submission.handle
        # Only `create_run` returns a finished run, which needs no sandbox.
        assert submitted is not None
        if not job.plan.settings.synchronous:
            with interrupts.deferred():
                shown.summary(accepted(submitted))
            return None
        until_its_end = stack.pop_all()

    def wait() -> None:
        with until_its_end:
            try:
                _follow(submitted, shown)
            except errors.ModalrunError as error:
                if not submitted.resumed:
                    raise
                # It was resumed, and its end is recorded and shown; ZenML would take an error for a
                # failure to resume it, and change its record.
                logger.error(error.message)

    return wait


def status(
    run: PipelineRunResponse,
) -> tuple[ExecutionStatus, dict[str, ExecutionStatus]]:
    """What is true of a run and of its steps; a record that says otherwise is set right first.

    Raises:
        ModalrunError: ZenML can't be asked.
    """
    from zenml.enums import ExecutionStatus

    with _worded(), _same_variables():
        view = runs.read_status(str(run.id))
        if view.state == LOST and view.over:
            view = reconcile.reconcile(view).status
        for note in view.notes:
            logger.warning("%s %s", note.text, " or ".join(f"'{c}'" for c in note.commands))
        known = {status.value for status in ExecutionStatus}
        return ExecutionStatus(view.run.status), {
            step.name: ExecutionStatus(step.status) for step in view.steps if step.status in known
        }


def stop(run_id: str, *, graceful: bool) -> None:
    """End a run by force, or ask it to end.

    Raises:
        NotFoundError: modalrun has no sandbox of it on record.
        ModalrunError: ZenML or Modal can't be asked; sandboxes may still run.
    """
    with _worded(), _same_variables():
        stopped = stopping.stop(run_id, force=not graceful, wait=not graceful, say=logger.info)
    logger.info(stopped.headline)


def _source_root(run: PipelineRunResponse) -> Path:
    """The source tree of a run.

    ZenML's own means the script that runs the pipeline; a run that it resumes from its command line
    has none, and has to have the tree that it had.
    """
    from zenml.client import Client
    from zenml.utils import source_utils

    if from_metadata(RunMetadata, run.run_metadata) is None:
        return Path(source_utils.get_source_root()).resolve()
    root = Path(Client.find_repository() or Path.cwd()).resolve()
    with contextlib.suppress(ValueError):
        manifest = RunManifest.from_metadata(run.run_metadata)
        if manifest is not None and manifest.source.root.is_dir():
            root = manifest.source.root
    source_utils.set_custom_source_root(str(root))
    return root


def _job(target: Target, snapshot_id: str, source_root: Path, shown: Reporter) -> Job:
    from modalrun.zenml_api.compiling import snapshots

    if target == "local":
        preflight.warm_up_local_server()
    shown.phase("Reading the deployment")
    spec = bare_spec(target, source_root)
    return preflight.check(spec, snapshots.from_zenml(snapshot_id, spec), shown)


def _ended_before(run: PipelineRunResponse, connection: Connection) -> RunMetadata | None:
    """The record of a run that ZenML resumes, once its sandbox has ended; None for a new run.

    The run is recorded as paused or failed a moment before its sandbox ends, and its name is the
    one that the next gets.
    """
    facts = from_metadata(RunMetadata, run.run_metadata)
    if facts is None:
        return None
    with contextlib.suppress(errors.NotFoundError):
        sandbox = connection.attach(facts.sandbox_id)
        RunningSandbox(connection, sandbox, app_id=facts.app_id).wait()
    return facts


def bare_spec(target: Target, source_root: Path) -> RunSpec:
    """A run spec that says nothing: the deployment is taken as it is."""
    return RunSpec(
        pipeline="",
        stack=None,
        target=target,
        source_root=source_root,
        run_configuration={},
        source=YamlSource(source_root, {}, {}),
    )


def _follow(run: RunHandle, shown: Reporter) -> None:
    """Show a run until its end.

    Raises:
        ModalrunError: It ended badly, or its end is not known.
        KeyboardInterrupt: Somebody left it to itself.
    """
    try:
        with _worded(), shown, interrupts.installed():
            outcome = attach.follow(run, shown, _on_interrupt(), stop=stopping.by_force)
            shown.summary(outcome)
    except errors.Interrupted:
        # What SIGTERM does to this process is for its program to say, not for us.
        signal.raise_signal(signal.SIGTERM)
        raise
    if outcome.exit_code:
        raise _error(outcome)


def _on_interrupt() -> OnInterrupt:
    """What Ctrl-C and SIGTERM do: outside of terminals and CI what ZenML's orchestrators do."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        return "ask"
    return "stop" if os.environ.get("CI") else "detach"


def _error(outcome: Outcome) -> errors.ModalrunError:
    error = sandbox_exit.error_class(outcome.exit_code)
    return error(f"{outcome.headline} See 'modalrun logs {outcome.run_id}'.")


@contextlib.contextmanager
def _worded() -> Iterator[None]:
    """Put what to do next into the text of an error: nothing else of it is seen in a traceback."""
    try:
        yield
    except errors.ModalrunError as error:
        if error.hint is None:
            raise
        raise type(error)(f"{error.message} {error.hint}") from None


@contextlib.contextmanager
def _left_open(run: PipelineRunResponse) -> Iterator[None]:
    """Keep ZenML from recording a run as failed whose sandbox may have been created.

    Of one that it resumes it makes what it was before.
    """
    from zenml.exceptions import RunMonitoringError

    try:
        yield
    except errors.UnknownOutcomeError as error:
        if from_metadata(RunMetadata, run.run_metadata) is not None:
            raise
        raise RunMonitoringError(original_exception=error) from None


@contextlib.contextmanager
def _shown_until_started(shown: Reporter) -> Iterator[None]:
    """Leave no half-drawn line on the terminal when the submission fails."""
    try:
        yield
    except BaseException:
        shown.close()
        raise


@contextlib.contextmanager
def _same_variables() -> Iterator[None]:
    """Leave the environment as it was: the process may go on to another stack or Modal server."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        changed = {k: v for k, v in before.items() if os.environ.get(k) != v}
        os.environ.update(changed)
