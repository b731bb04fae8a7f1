"""Running the one step of a step sandbox, for the first time or again for the same record.

ZenML has no way to execute a step run record a second time: its server counts the records of a
step and refuses more than the user's retries allow (`sql_zen_store.py:12350`, ZenML 0.98.0). So
that a sandbox that was lost doesn't use up one of them, `_Launcher.launch_again` does with the
record what `StepLauncher.launch` does after having created one (`step_launcher.py:163`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NoReturn, Protocol
from uuid import UUID

from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.enums import ExecutionStatus, StepRuntime
from zenml.exceptions import RunStoppedException
from zenml.models import (
    ExceptionInfo,
    PipelineRunResponse,
    PipelineSnapshotResponse,
    StepRunResponse,
    StepRunUpdate,
)
from zenml.orchestrators import publish_utils
from zenml.orchestrators.signal_handler import SignalHandler
from zenml.orchestrators.step_launcher import StepLauncher
from zenml.orchestrators.step_runner import StepRunner
from zenml.steps import StepHeartBeatTerminationException
from zenml.steps.base_step import BaseStep
from zenml.utils.env_utils import get_runtime_environment, temporary_environment
from zenml.utils.logging_utils import LoggingContext
from zenml.utils.time_utils import utc_now

from modalrun.run.metadata import StepMetadata, to_metadata
from modalrun.run.reporting import log_line
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.retry import wait_for_server

Word = Literal["completed", "failed", "stopped", "running"]
"""What ZenML's record says of the step in the end. "running": nothing final."""

_NOT_BEGUN = {
    ExecutionStatus.RETRYING,
    # A dynamic pipeline's isolated step, whose record is made before its sandbox.
    ExecutionStatus.INITIALIZING,
    ExecutionStatus.PROVISIONING,
}

FACTS_SECONDS = 10.0
"""How long the process waits at its end for the sandbox's facts to be stored."""


class Signals(Protocol):
    """What becomes of a termination.

    Attributes:
        came: Whether there was one.
    """

    came: bool

    def in_user_code(self) -> AbstractContextManager[None]:
        """Inside, a termination raises an exception in the main thread; outside it ends all."""

    def reason(self) -> str | None:
        """Why the step has failed, in a sentence; None where that is not the step's doing."""

    def leave(self) -> NoReturn:
        """End the process."""


class OneStep:
    """The step of a step sandbox."""

    def __init__(
        self,
        run_id: str,
        name: str,
        *,
        step_run: str | None = None,
        facts: StepMetadata | None = None,
    ) -> None:
        """Load the run, and of its deployment what belongs to this step.

        Args:
            run_id: ZenML's run id.
            name: The step's invocation id.
            step_run: The id of the record to execute again; None for a record of its own.
            facts: What is known of this sandbox; stored with the record as soon as there is one.
        """
        self._loaded = LoadedRun(run_id, only=[name])
        wait_for_server(log_line)
        self._again = UUID(step_run) if step_run else None
        self._step = self._configuration(name)
        self._launcher = _Launcher(
            self._loaded.snapshot, self._step, self._loaded.orchestrator_run_id, facts
        )

    def prepare(self) -> None:
        """Import the user's code, before it is the step's turn.

        What goes wrong with that goes wrong again, and is recorded, when the step runs.
        """
        with contextlib.suppress(Exception):
            BaseStep.load_from_source(self._step.spec.source)

    def _configuration(self, name: str) -> Step:
        """The step's configuration; a dynamic pipeline's is known only with its record."""
        if self._again is None or not self._loaded.snapshot.is_dynamic:
            return self._loaded.snapshot.step_configurations[name]
        record = Client().zen_store.get_run_step(self._again)
        # What it is isolated from is elsewhere; here it runs in this process.
        config = record.config.model_copy(update={"runtime": StepRuntime.INLINE})
        return Step(spec=record.spec, config=config, step_config_overrides=config)

    def run(self, signals: Signals, failed: Callable[[BaseException], None]) -> Word:
        """Run the step once; returns what is recorded of it.

        Args:
            signals: What becomes of a termination.
            failed: Is given what the step raised.

        Raises:
            Exception: ZenML could not be asked what is recorded.
        """
        self._launcher.guarded = lambda call: self._guarded(signals, call)
        environment = get_runtime_environment(config=self._step.config, stack=self._loaded.stack)
        try:
            with temporary_environment(environment):
                if self._again is None:
                    step_run = self._launcher.launch()
                else:
                    step_run = self._launcher.launch_again(self._again)
                self._launcher.store_facts(step_run)
                if step_run.status.is_finished:
                    self._launcher.finish_facts()
                    return word(step_run.status)
        except BaseException as error:
            # After a stop ZenML raises all kinds of things.
            if self._word() != "stopped":
                failed(error)
                self._fail(f"{type(error).__name__}: {error}")
        self._launcher.finish_facts()
        return self._word()

    def _guarded(self, signals: Signals, call: Callable[[], Any]) -> Any:
        """Call the user's code; does not come back from it after a termination.

        ZenML records every exception as the step's failure, for good. A sandbox that is taken away
        is no failure of its step, which is executed again; so ZenML doesn't hear of it.
        """
        try:
            with signals.in_user_code():
                return call()
        except BaseException:
            if not signals.came:
                raise
            reason = signals.reason()
            if reason is not None:
                self._fail(reason)
            self._launcher.finish_facts()
            with contextlib.suppress(Exception):
                _keep_logs()
            signals.leave()

    def _word(self) -> Word:
        client = Client()
        if self._launcher.record is not None:
            return word(
                client.zen_store.get_run_step(self._launcher.record.id, hydrate=False).status
            )
        # It could not be created: an earlier sandbox was quicker, or the run is stopping.
        found = client.list_run_steps(
            pipeline_run_id=self._loaded.run.id,
            name=self._step.spec.invocation_id,
            sort_by="desc:version",
            size=1,
            project=client.active_project.id,
        )
        run = client.zen_store.get_run(self._loaded.run.id, hydrate=False)
        if not found.total and run.status in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}:
            return "stopped"
        return word(found[0].status) if found.total else "running"

    def _fail(self, reason: str) -> None:
        """Record a failure that ZenML has not recorded."""
        if self._launcher.record is not None and self._word() == "running":
            Client().zen_store.update_run_step(
                self._launcher.record.id,
                StepRunUpdate(
                    status=ExecutionStatus.FAILED,
                    end_time=utc_now(),
                    exception_info=ExceptionInfo(traceback=reason),
                ),
            )


def word(status: ExecutionStatus) -> Word:
    """What a status of ZenML's means for the sandbox of the step."""
    if status.is_successful:
        return "completed"
    if status.is_failed or status in {ExecutionStatus.RETRYING, ExecutionStatus.RETRIED}:
        return "failed"
    if status in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}:
        return "stopped"
    return "running"


class _Launcher(StepLauncher):
    """ZenML's launcher, which also executes a record again, and says which record there is."""

    def __init__(
        self,
        snapshot: PipelineSnapshotResponse,
        step: Step,
        orchestrator_run_id: str,
        facts: StepMetadata | None,
    ) -> None:
        super().__init__(snapshot=snapshot, step=step, orchestrator_run_id=orchestrator_run_id)
        self.guarded: Callable[[Callable[[], Any]], Any] = lambda call: call()
        self._facts = facts
        self._storing: threading.Thread | None = None

    @property
    def record(self) -> StepRunResponse | None:
        """The step run as it was when it was created or found; None where there is none yet."""
        return self._step_run

    def launch_again(self, step_run_id: UUID) -> StepRunResponse:
        """Execute the step for a record that is not finished; returns the record as it is then.

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

    def store_facts(self, step_run: StepRunResponse) -> None:
        """Store what is known of the sandbox with the record, beside everything else; once."""
        if self._facts is not None and self._storing is None:
            metadata = {self._stack.orchestrator.id: to_metadata(self._facts)}
            self._storing = threading.Thread(
                target=_store, args=(step_run.id, metadata), daemon=True
            )
            self._storing.start()

    def finish_facts(self) -> None:
        """Wait a little for what is being stored."""
        if self._storing is not None:
            self._storing.join(FACTS_SECONDS)

    def _create_or_reuse_run(self) -> tuple[PipelineRunResponse, bool]:
        run, created = super()._create_or_reuse_run()
        if run.resources is not None:
            # For step-level hooks ZenML would load it once more, with all of its steps.
            run.resources.snapshot = self._snapshot
        return run, created

    def _run_step(
        self,
        pipeline_run: PipelineRunResponse,
        step_run: StepRunResponse,
        force_write_logs: Callable[..., Any],
    ) -> StepRunResponse | None:
        self.store_facts(step_run)

        def run() -> StepRunResponse | None:
            return super(_Launcher, self)._run_step(pipeline_run, step_run, force_write_logs)

        # A step operator cleans up what it has started elsewhere when it is interrupted.
        return self.guarded(run) if self._step.config.step_operator else run()

    def _run_step_in_current_thread(self, *args: Any, **kwargs: Any) -> StepRunResponse:
        runner = _Runner(step=self._step, stack=self._stack)
        runner.guarded = self.guarded
        return runner.run(*args, **kwargs)


class _Runner(StepRunner):
    """ZenML's step runner, with something around the user's code."""

    guarded: Callable[[Callable[[], Any]], Any]

    def _load_step(self) -> BaseStep:
        step = super()._load_step()
        call = step.call_entrypoint

        def call_entrypoint(**parameters: Any) -> Any:
            return self.guarded(lambda: call(**parameters))

        # The step is a copy of ZenML's, for this runner alone.
        step.call_entrypoint = call_entrypoint  # type: ignore[method-assign]
        return step


def _keep_logs() -> None:
    """Store what the step has printed; ending one of two contexts doesn't do it by itself."""
    if (logs := LoggingContext.get()) is not None:
        logs.end()
        Client().active_stack.log_store.flush(blocking=True)


def _store(step_run_id: UUID, metadata: dict[UUID, dict[str, Any]]) -> None:
    try:
        publish_utils.publish_step_run_metadata(step_run_id, metadata)
    except Exception:
        logging.getLogger(__name__).warning("The step's metadata was not stored.", exc_info=True)
