"""Run one step, for a new record or again for an existing one.

ZenML can't execute a step run record a second time: its server counts the records of a step and
refuses more than the user's retries allow (`sql_zen_store.py:12350`, ZenML 0.98.0). So that a lost
sandbox doesn't use up a retry, `Launcher.launch_again` does with the record what
`StepLauncher.launch` does after creating one (`step_launcher.py:163`).
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal, NoReturn, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.enums import ExecutionStatus, StepRuntime
from zenml.exceptions import RunStoppedException
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse, StepRunResponse
from zenml.orchestrators import publish_utils
from zenml.orchestrators.signal_handler import SignalHandler
from zenml.orchestrators.step_launcher import StepLauncher
from zenml.orchestrators.step_runner import StepRunner
from zenml.steps import StepHeartBeatTerminationException
from zenml.steps.base_step import BaseStep
from zenml.utils.env_utils import get_runtime_environment, temporary_environment
from zenml.utils.exception_utils import collect_exception_information
from zenml.utils.logging_utils import LoggingContext

from modalrun.run.failure import trace_of
from modalrun.run.metadata import StepMetadata
from modalrun.run.reporting import log_line
from modalrun.run.zenml_modules import DATABASE_MODULES, ZENML_MODULES
from modalrun.util import line_ends
from modalrun.zenml_api import config_files
from modalrun.zenml_api.errors import database_errors
from modalrun.zenml_api.execution import containment, steps
from modalrun.zenml_api.execution.exception_text import require_text
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records.responses import STOPPED
from modalrun.zenml_api.records.step_records import end_step, honour_stop_request, record_metadata
from modalrun.zenml_api.retry import while_database_fails

FinalStatus = Literal["completed", "failed", "stopped", "running"]
"""ZenML's record of a step or run, as far as it matters at the end. "running": nothing final."""

_NOT_BEGUN = {
    ExecutionStatus.RETRYING,
    # A dynamic pipeline's isolated step, whose record is made before its sandbox.
    ExecutionStatus.INITIALIZING,
    ExecutionStatus.PROVISIONING,
}

METADATA_SECONDS = 10.0
"""How long the process waits at its end until the sandbox's metadata is stored."""


def import_ahead() -> None:
    """Import what ZenML imports when it opens its store and runs a step, for forks to have it."""
    server = urlsplit(config_files.store_url()).scheme in {"http", "https"}
    skipped = DATABASE_MODULES if server else frozenset()
    for name in (name for name in ZENML_MODULES if name not in skipped):
        module, _, function = name.partition(":")
        # Another version of ZenML may lack one.
        with contextlib.suppress(ModuleNotFoundError):
            imported = importlib.import_module(module)
            if function:
                operator.attrgetter(function)(imported)()


class Signals(Protocol):
    """Handle the termination of the process.

    Attributes:
        came: Whether a termination signal came.
    """

    came: bool

    def in_user_code(self) -> AbstractContextManager[None]:
        """Let a termination raise an exception in the main thread; outside it ends the process."""

    def reason(self) -> str | None:
        """Return why the step has failed; None if the termination is not the step's fault."""

    def leave(self) -> NoReturn:
        """End the process."""


class SingleStep:
    """One step, in the process that runs it."""

    def __init__(
        self,
        loaded: LoadedRun,
        name: str,
        *,
        step_run: str | None = None,
        metadata: StepMetadata | None = None,
    ) -> None:
        """Prepare to run it once.

        Args:
            loaded: Its run, with this step's configuration.
            name: The step's invocation id.
            step_run: The id of the record to execute again; None for a new record.
            metadata: Describes this sandbox; stored with the record as soon as there is one.
        """
        self._loaded = loaded
        self._again = UUID(step_run) if step_run else None
        self._step = self._configuration(name)
        self._launcher = Launcher(
            self._loaded.snapshot, self._step, self._loaded.orchestrator_run_id, metadata
        )

    @classmethod
    def load(
        cls,
        run_id: str,
        name: str,
        *,
        step_run: str | None = None,
        metadata: StepMetadata | None = None,
    ) -> SingleStep:
        """Load the run, and the part of its deployment that belongs to this step."""
        return cls(steps.load(run_id, name), name, step_run=step_run, metadata=metadata)

    def _configuration(self, name: str) -> Step:
        """Return the step's configuration; in a dynamic pipeline its record holds it."""
        if self._again is None or not self._loaded.snapshot.is_dynamic:
            return self._loaded.snapshot.step_configurations[name]
        record = Client().zen_store.get_run_step(self._again)
        # It is isolated already: in this sandbox it runs in this process.
        config = record.config.model_copy(update={"runtime": StepRuntime.INLINE})
        return Step(spec=record.spec, config=config, step_config_overrides=config)

    def run(self, signals: Signals, failed: Callable[[BaseException], None]) -> FinalStatus:
        """Run the step once and return its recorded status.

        Args:
            signals: Handles a termination.
            failed: Gets what the step raised.

        Raises:
            Exception: The record could not be read.
        """
        self._launcher.guarded = lambda call: self._guarded(signals, call)
        environment = get_runtime_environment(config=self._step.config, stack=self._loaded.stack)
        try:
            with temporary_environment(environment):
                if self._again is None:
                    step_run = self._launcher.launch()
                else:
                    step_run = self._launcher.launch_again(self._again)
                self._launcher.store_metadata(step_run)
                if step_run.status.is_finished:
                    self._launcher.wait_for_metadata()
                    return final_status(step_run.status)
        except BaseException as error:
            # After a stop ZenML raises all kinds of exceptions.
            if self._recorded_status() != "stopped":
                failed(error)
                self._fail(_reason(error), error)
        self._launcher.wait_for_metadata()
        return self._recorded_status()

    def _guarded(self, signals: Signals, call: Callable[[], Any]) -> Any:
        """Call the user's code; end the process after a termination.

        ZenML would record the exception as the step's failure, for good. But the loss of its
        sandbox is no failure of the step, which is executed again.
        """
        try:
            with (
                line_ends.ended(),
                line_ends.redrawn_once(),
                signals.in_user_code(),
                containment.contained(),
            ):
                return call()
        except BaseException as error:
            if not signals.came:
                require_text(error)
                honour_stop_request(str(self._loaded.run.id))
                raise
            reason = signals.reason()
            if reason is not None:
                # Whoever records the failure, if there is no time for it here, has this.
                log_line("\n".join(trace_of(error)))
                self._fail(reason, error)
            self._launcher.wait_for_metadata()
            with contextlib.suppress(Exception):
                _flush_logs()
            signals.leave()

    def _recorded_status(self) -> FinalStatus:
        client = Client()
        if (record := self._launcher.record) is not None:
            return final_status(client.zen_store.get_run_step(record.id, hydrate=False).status)
        # It could not be created: an earlier sandbox was quicker, or the run is stopping.
        found = client.list_run_steps(
            pipeline_run_id=self._loaded.run.id,
            name=self._step.spec.invocation_id,
            sort_by="desc:version",
            size=1,
            project=client.active_project.id,
        )
        if found.total:
            return final_status(found[0].status)
        run = client.zen_store.get_run(self._loaded.run.id, hydrate=False)
        return "stopped" if final_status(run.status) == "stopped" else "running"

    def _fail(self, reason: str, error: BaseException) -> None:
        """Record a failure that ZenML has not recorded, and where the step was."""
        record = self._launcher.record
        if record is not None and self._recorded_status() == "running":
            lines = trace_of(error)
            while_database_fails(lambda: end_step(str(record.id), "failed", reason, lines))


def _reason(error: BaseException) -> str:
    """Return why a step has failed whose failure ZenML has not recorded."""
    if isinstance(error, database_errors()):
        # Its text is a long SQL statement.
        database = config_files.database() or ""
        return f"ZenML's database {database} can't be written: {error.orig}."
    return f"{type(error).__name__}: {error}"


def final_status(status: ExecutionStatus) -> FinalStatus:
    """Return the meaning of ZenML's status for the exit of a sandbox."""
    if status.is_successful:
        return "completed"
    if status.is_failed or status in {ExecutionStatus.RETRYING, ExecutionStatus.RETRIED}:
        return "failed"
    return "stopped" if status in STOPPED else "running"


class Launcher(StepLauncher):
    """Extend ZenML's launcher to execute a record again, and to expose the record."""

    def __init__(
        self,
        snapshot: PipelineSnapshotResponse,
        step: Step,
        orchestrator_run_id: str,
        metadata: StepMetadata | None,
    ) -> None:
        # ZenML would store what it logs before the step's own code as a second log, two writes and
        # nine queries, and the traceback of a failed step in both.
        unlogged = step.config.model_copy(update={"enable_step_logs": False})
        super().__init__(
            snapshot=snapshot,
            step=step.model_copy(update={"config": unlogged}),
            orchestrator_run_id=orchestrator_run_id,
        )
        self._whole_step = step
        self.guarded: Callable[[Callable[[], Any]], Any] = lambda call: call()
        self._metadata = metadata
        self._storing: threading.Thread | None = None

    @property
    def record(self) -> StepRunResponse | None:
        """The step run as it was created or found; None if there is none yet."""
        return self._step_run

    def launch_again(self, step_run_id: UUID) -> StepRunResponse:
        """Execute the step for an unfinished record, and return the record afterwards.

        Raises:
            BaseException: What the step raised; it is recorded.
        """
        publish_utils.step_exception_info.set(None)
        pipeline_run, _ = self._create_or_reuse_run()
        self._step_run = step_run = Client().zen_store.get_run_step(step_run_id)
        if step_run.status.is_finished:
            return step_run
        if step_run.status in _NOT_BEGUN:
            publish_utils.publish_step_run_status_update(step_run_id, ExecutionStatus.RUNNING)
        mode = self._snapshot.pipeline_configuration.execution_mode
        with SignalHandler(step_run=step_run, execution_mode=mode):
            try:
                ended = self._run_step(pipeline_run, step_run, force_write_logs=lambda: None)
            except RunStoppedException:
                raise
            except BaseException as error:
                self._publish_end(step_run_id, error)
                raise
        return ended or Client().zen_store.get_run_step(step_run_id)

    def _publish_end(self, step_run_id: UUID, error: BaseException) -> None:
        status = Client().zen_store.get_run_step(step_run_id, hydrate=False).status
        if status.is_finished:
            return
        if status == ExecutionStatus.CANCELLING:
            publish_utils.publish_cancelled_step_run(step_run_id)
        elif (
            isinstance(error, StepHeartBeatTerminationException)
            or status == ExecutionStatus.STOPPING
        ):
            publish_utils.publish_stopped_step_run(step_run_id)
        elif status != ExecutionStatus.RETRYING:
            publish_utils.publish_failed_step_run(step_run_id)

    def store_metadata(self, step_run: StepRunResponse) -> None:
        """Store the sandbox's metadata with the record, once, in a thread."""
        if self._metadata is not None and self._storing is None:
            self._storing = threading.Thread(
                target=record_metadata,
                args=(str(step_run.id), replace(self._metadata, begun=time.time())),
                daemon=True,
            )
            self._storing.start()

    def wait_for_metadata(self) -> None:
        """Wait a little until the metadata is stored."""
        if self._storing is not None:
            self._storing.join(METADATA_SECONDS)

    def _create_or_reuse_run(self) -> tuple[PipelineRunResponse, bool]:
        # It comes after the choice whether there is such a log.
        self._step = self._whole_step
        run, created = super()._create_or_reuse_run()
        if run.resources is not None:
            # For step-level hooks ZenML would load it again, with all of its steps.
            run.resources.snapshot = self._snapshot
        return run, created

    def _run_step(
        self,
        pipeline_run: PipelineRunResponse,
        step_run: StepRunResponse,
        force_write_logs: Callable[..., Any],
    ) -> StepRunResponse | None:
        self.store_metadata(step_run)

        def run() -> StepRunResponse | None:
            return super(Launcher, self)._run_step(pipeline_run, step_run, force_write_logs)

        # When it is interrupted, a step operator cleans up what it has started elsewhere.
        return self.guarded(run) if self._step.config.step_operator else run()

    def _run_step_in_current_thread(self, *args: Any, **kwargs: Any) -> StepRunResponse:
        runner = _Runner(step=self._step, stack=self._stack)
        runner.guarded = self.guarded
        try:
            return runner.run(*args, **kwargs)
        except BaseException as error:
            if publish_utils.step_exception_info.get() is None:
                # ZenML keeps only what the step's function raises, and not what its module does.
                with contextlib.suppress(Exception):
                    require_text(error)
                    publish_utils.step_exception_info.set(collect_exception_information(error))
            raise


class _Runner(StepRunner):
    """Extend ZenML's step runner to guard the user's code."""

    guarded: Callable[[Callable[[], Any]], Any]

    def _load_step(self) -> BaseStep:
        step = super()._load_step()
        call = step.call_entrypoint

        def call_entrypoint(**parameters: Any) -> Any:
            return self.guarded(lambda: call(**parameters))

        # The step is a copy of ZenML's, for this runner alone.
        step.call_entrypoint = call_entrypoint  # type: ignore[method-assign]
        return step


def _flush_logs() -> None:
    """Store what the step has printed; the end of one of two logging contexts doesn't do it."""
    if (logs := LoggingContext.get()) is not None:
        logs.end()
        Client().active_stack.log_store.flush(blocking=True)
