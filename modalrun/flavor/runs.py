"""Submit, inspect and stop the runs of a stack with a registered orchestrator.

Unlike with `modalrun submit`, ZenML has compiled and stored the deployment and created the run, the
process is the user's (a script, a notebook, ZenML's command), and errors are raised to the caller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun import errors
from modalrun.control import reconcile
from modalrun.control import stop as stopping
from modalrun.modal_api.configuration import configured_environment
from modalrun.observe import attach
from modalrun.observe import status as runs
from modalrun.observe.handle import RunHandle
from modalrun.observe.interrupt_prompt import OnInterrupt
from modalrun.observe.outcome import accepted
from modalrun.output import make_reporter
from modalrun.output.reporter import Reporter
from modalrun.output.terminal.sanitize import plain
from modalrun.plan.planner import app_name
from modalrun.plan.stack import problems_on_modal, wrong_stack
from modalrun.run import sandbox_exit
from modalrun.run.metadata import (
    Announced,
    RunMetadata,
    from_metadata,
    not_created_metadata,
    to_metadata,
)
from modalrun.run.outcome import LOST
from modalrun.run.run_plan import Target
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import preflight, withdrawal
from modalrun.submit.creation import wait_for_sandbox
from modalrun.submit.preflight import Earlier, Job
from modalrun.submit.source.root import check_root
from modalrun.submit.submission import Submission
from modalrun.util import compatibility, interrupts
from modalrun.util.background import in_background
from modalrun.util.environment import restored_environment
from modalrun.util.text import shell_word
from modalrun.zenml_api.gateway import ZENML
from modalrun.zenml_api.retry import open_store

if TYPE_CHECKING:
    from zenml.enums import ExecutionStatus
    from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
    from zenml.stack import Stack

    from modalrun.settings import ModalOrchestratorSettings

logger = logging.getLogger(__name__)

_ROOT_HINT = (
    "ZenML takes the nearest folder with '.zen' ('zenml init') from the current one upwards, else"
    " that of the script: keep the project in a folder of its own."
)


def validate(stack: Stack) -> tuple[bool, str]:
    """Return whether a stack can be used on Modal's cloud, and all its problems in one message."""
    from modalrun.zenml_api.stack_description import describe_stack

    described = describe_stack(stack)
    problems = problems_on_modal(described)
    if not problems:
        return True, ""
    error = wrong_stack(described, problems)
    name = shell_word(stack.orchestrator.name)
    command = f"zenml orchestrator update {name} --target=local"
    return False, plain(
        f"{error.message}\nUse remote components; or, for the local Modal server, an orchestrator"
        f" with that target: '{command}'."
    )


def announce(
    run_id: str,
    target: Target,
    snapshot: PipelineSnapshotResponse,
    settings: ModalOrchestratorSettings,
) -> None:
    """Record that a run is modalrun's: ZenML's cache may complete it before it is submitted.

    Raises:
        ModalrunError: ZenML can't be asked.
    """
    with _readable_errors():
        configured = configured_environment(target)
        metadata = Announced(
            target,
            settings.mode or "pipeline",
            settings.app_name or app_name(snapshot.pipeline_configuration.name),
            settings.modal_environment or (configured.value if configured else None),
        )
        open_store()
        ZENML.publish_metadata(run_id, to_metadata(metadata))


@contextlib.contextmanager
def signals_handled(run_id: str) -> Iterator[None]:
    """Leave no record that looks alive when a signal ends the block before the run is submitted.

    The program that this process runs decides how it handles SIGTERM and SIGHUP in the end.
    """
    try:
        with interrupts.installed():
            try:
                yield
            except (KeyboardInterrupt, errors.Interrupted):
                with interrupts.deferred(), contextlib.suppress(errors.ModalrunError):
                    interrupts.within(withdrawal.SECONDS, lambda: _stop_unsubmitted(run_id))
                raise
    except errors.Interrupted as interruption:
        signal.raise_signal(interruption.number)
        raise


def _stop_unsubmitted(run_id: str) -> None:
    run = ZENML.read_run(run_id)
    if run.status == "initializing" and run.metadata is None:
        ZENML.finalize_run(run_id, "The submission was interrupted.", stopped=True)


def submit(
    target: Target,
    snapshot: PipelineSnapshotResponse,
    environment: Mapping[str, str],
    run: PipelineRunResponse | None,
) -> Callable[[], None] | None:
    """Create the sandbox of a run that ZenML has created.

    Args:
        target: Where it runs.
        snapshot: The deployment as ZenML stores it.
        environment: The variables with which a sandbox uses ZenML.

    Returns:
        A function that follows the run to its end; None for an asynchronous run.

    Raises:
        ModalrunError: As for `submission.submit`; its message includes the hint.
    """
    compatibility.require()
    if snapshot.schedule is not None or run is None:
        raise errors.UsageError(
            "Scheduled pipelines are not supported: a run on Modal is started by whoever submits"
            " it. Remove the schedule, and let a scheduler (cron, CI) run the pipeline."
        )
    shown = make_reporter()
    with ExitStack() as stack:
        stack.enter_context(restored_environment())
        stack.enter_context(_unknown_outcome_kept_open(run))
        with _readable_errors(), ExitStack() as display, interrupts.installed():
            display.callback(shown.close)
            previous = from_metadata(RunMetadata, run.run_metadata)
            earlier = Earlier(str(run.id), previous.environment) if previous is not None else None
            with _failure_recorded(run):
                job = _job(target, str(snapshot.id), _source_root(run), shown, earlier)
            from modalrun.zenml_api.records.runs import existing_run

            zenml = ZENML
            submission = Submission(job, shown, zenml)
            if previous is not None:
                # The next sandbox gets the same name.
                wait_for_sandbox(job, str(run.id), previous)
                submission.previous = previous
                submission.submitted = zenml.read_source(str(run.id))
            try:
                submission.create(
                    lambda _: existing_run(job.compiled, str(run.id), environment),
                    # ZenML resets a run that it resumes to its former status.
                    str(run.id) if previous is None else None,
                )
                interrupts.check()
                submitted = submission.handle
                # Only `create_run` returns a finished run, which needs no sandbox.
                assert submitted is not None
                waits = job.plan.settings.synchronous
                outcome = None if waits else in_background(lambda: accepted(submitted))
            except (KeyboardInterrupt, errors.Interrupted):
                # ZenML treats the run as not submitted.
                if (handle := submission.handle) is not None:
                    with interrupts.deferred():
                        interrupts.within(
                            attach.STOP_SECONDS,
                            lambda: stopping.by_force(
                                str(run.id), handle.sandboxes, seconds=attach.STOP_SECONDS
                            ),
                        )
                raise
            display.pop_all()
        if outcome is not None:
            with interrupts.deferred():
                shown.summary(outcome)
            return None
        until_its_end = stack.pop_all()

    def wait() -> None:
        with until_its_end, _script_ended():
            try:
                _follow(submitted, shown)
            except errors.ModalrunError as error:
                if not submitted.resumed:
                    raise
                # Its end is recorded and shown. ZenML would take an error for a failure to resume
                # the run, and change its record.
                logger.error(plain(error.message))

    return wait


@contextlib.contextmanager
def _script_ended() -> Iterator[None]:
    """End a script that detaches with the signal's exit code: ZenML would show a traceback."""
    try:
        yield
    except (KeyboardInterrupt, errors.Interrupted) as interruption:
        # A prompt or a notebook goes on.
        if hasattr(sys, "ps1"):
            raise
        raise SystemExit(128 + interrupts.number(interruption)) from None


def status(
    run: PipelineRunResponse,
) -> tuple[ExecutionStatus, dict[str, ExecutionStatus]]:
    """Return the status of a run and of its steps, after reconciling a lost run.

    Raises:
        ModalrunError: ZenML can't be asked.
    """
    from zenml.enums import ExecutionStatus

    with _readable_errors(), restored_environment():
        found = runs.read_status(str(run.id))
        if found.state == LOST and found.over:
            found = reconcile.reconcile(found).status
        for note in found.notes:
            commands = " or ".join(f"'{command}'" for command in note.commands)
            logger.warning(plain(f"{note.text} {commands}"))
        known = {status.value for status in ExecutionStatus}
        return ExecutionStatus(found.run.status), {
            step.name: ExecutionStatus(step.status) for step in found.steps if step.status in known
        }


def stop(run_id: str, *, graceful: bool) -> None:
    """Stop a run by force or gracefully.

    Raises:
        NotFoundError: ZenML has no sandbox of it on record.
        ModalrunError: ZenML or Modal can't be asked; sandboxes may still run.
    """

    def say(text: str) -> None:
        logger.info(plain(text))

    with _readable_errors(), restored_environment():
        stopped = stopping.stop(run_id, force=not graceful, wait=not graceful, say=say)
    say(stopped.headline)


def _source_root(run: PipelineRunResponse) -> Path:
    """Return the source root of a run.

    ZenML derives it from the script that runs the pipeline. A run that is resumed from ZenML's
    command line has no script: it gets the repository that the current folder is in, or the folder.

    Raises:
        UsageError: It is the home folder, or another that can't be one.
    """
    from zenml.client import Client
    from zenml.utils import source_utils

    if from_metadata(RunMetadata, run.run_metadata) is None:
        root = Path(source_utils.get_source_root()).resolve()
        check_root(root, _ROOT_HINT)
        return root
    root = Path(Client.find_repository() or Path.cwd()).resolve()
    source_utils.set_custom_source_root(str(root))
    return root


def _job(
    target: Target, snapshot_id: str, source_root: Path, shown: Reporter, earlier: Earlier | None
) -> Job:
    from modalrun.zenml_api.compiling import snapshots

    if target == "local":
        preflight.warm_up_local_server()
    shown.phase("Reading the deployment")
    spec = RunSpec.of_snapshot(target, source_root, own_code=True)
    compiled = snapshots.from_zenml(snapshot_id, spec)
    return preflight.check(spec, compiled, shown, earlier=earlier)


def _follow(run: RunHandle, shown: Reporter) -> None:
    """Show a run until its end.

    Raises:
        ModalrunError: The run did not complete, or its end is not known.
        KeyboardInterrupt: The user detached.
    """
    with _readable_errors():
        with shown, interrupts.installed():
            outcome = attach.follow(run, shown, _on_interrupt(), stop=stopping.by_force)
            shown.summary(outcome)
        if outcome.exit_code:
            error = sandbox_exit.error_class(outcome.exit_code)
            raise error(f"{outcome.headline} See 'modalrun logs {outcome.run_id}'.")


def _on_interrupt() -> OnInterrupt:
    """Return the effect of Ctrl-C and SIGTERM; without a terminal or CI as in ZenML."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        return "ask"
    return "stop" if os.environ.get("CI") else "detach"


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Append an error's hint to its message, and neutralise it: a traceback shows it as it is."""
    try:
        yield
    except errors.ModalrunError as error:
        message = plain(f"{error.message} {error.hint}" if error.hint else error.message)
        if message == str(error):
            raise
        raise type(error)(message) from None


@contextlib.contextmanager
def _failure_recorded(run: PipelineRunResponse) -> Iterator[None]:
    """Record why a run is not submitted, and say so: ZenML would record only that it has failed.

    ZenML resets a run that it resumes to its former status.
    """
    try:
        yield
    except errors.ModalrunError as error:
        if from_metadata(RunMetadata, run.run_metadata) is not None:
            raise
        recorded = withdrawal.as_recorded(error, str(run.id))
        # ZenML may be what has failed.
        with contextlib.suppress(Exception):
            interrupts.within(withdrawal.SECONDS, partial(_record_failure, str(run.id), recorded))
        raise recorded from error


def _record_failure(run_id: str, error: errors.ModalrunError) -> None:
    if ZENML.finalize_run(run_id, f"The run sandbox was not created: {error.problem}"):
        ZENML.publish_metadata(run_id, not_created_metadata(error.exit_code))


@contextlib.contextmanager
def _unknown_outcome_kept_open(run: PipelineRunResponse) -> Iterator[None]:
    """Keep ZenML from recording a run as failed if its sandbox may exist.

    ZenML resets a run that it resumes to its former status.
    """
    from zenml.exceptions import RunMonitoringError

    try:
        yield
    except errors.UnknownOutcomeError as error:
        if from_metadata(RunMetadata, run.run_metadata) is not None:
            raise
        raise RunMonitoringError(original_exception=error) from None
