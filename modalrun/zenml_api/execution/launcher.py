"""Launch a step as ZenML does, for a new record or again for an existing one.

ZenML can't execute a step run record a second time: its server counts the records of a step and
refuses more than the user's retries allow (`sql_zen_store.py:12350`, ZenML 0.98.0). So that a lost
sandbox doesn't use up a retry, `Launcher.launch_again` does with the record what
`StepLauncher.launch` does after creating one (`step_launcher.py:163`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.enums import ExecutionStatus
from zenml.exceptions import RunStoppedException
from zenml.models import (
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
from zenml.utils.exception_utils import collect_exception_information

from modalrun.run import usage_log
from modalrun.run.metadata import StepMetadata, from_metadata
from modalrun.run.usage import StepUsage
from modalrun.zenml_api.execution.exception_text import text_required
from modalrun.zenml_api.execution.steps import NOT_BEGUN
from modalrun.zenml_api.records.step_records import record_metadata

METADATA_SECONDS = 10.0
"""How long the process waits at its end until the sandbox's metadata is stored."""


_NOT_RUN = {ExecutionStatus.FAILED, ExecutionStatus.RETRYING}


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
        self._storing: list[threading.Thread] = []
        self._measured: usage_log.Measured | None = None

    @property
    def record(self) -> StepRunResponse | None:
        """The step run as it was created or found; None if there is none yet."""
        return self._step_run

    def launch(self) -> StepRunResponse:
        """Launch the step as ZenML does; what it fails with has a text, and is recorded.

        Before it runs a step, ZenML imports its module, and fails at an exception that it can't
        describe: the record has failed then, without a reason (`step_launcher.py:226`).
        """
        try:
            return super().launch()
        except BaseException as error:
            record, undescribed = self.record, error.__context__
            if undescribed is None or record is None:
                raise
            # As it was made: a step that has begun has another status.
            if record.status not in _NOT_RUN or record.exception_info:
                raise
        try:
            with text_required():
                raise undescribed
        except BaseException as described:
            update = StepRunUpdate(exception_info=collect_exception_information(described))
            Client().zen_store.update_run_step(record.id, update)
            raise

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
        if self._metadata is not None:
            stored = from_metadata(StepMetadata, step_run.run_metadata)
            self._metadata = self._metadata.over(stored)
            if stored is not None and self._metadata.lost is None:
                # The driver doesn't know when another process has asked for the sandbox.
                self._metadata = replace(self._metadata, lost=stored.requested)
        if step_run.status in NOT_BEGUN | {ExecutionStatus.RETRYING}:
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
        if self._metadata is not None:
            self._store(str(step_run.id), replace(self._metadata, begun=time.time()))
            self._metadata = None

    def store_usage(self) -> None:
        """Store what the step has used until now with the record, once, in a thread."""
        if self.record is not None and self._measured is not None:
            usage, self._measured = self._measured.end(), None
            if usage is not None:
                self._store(str(self.record.id), usage)

    def _store(self, record: str, metadata: StepMetadata | StepUsage) -> None:
        thread = threading.Thread(target=record_metadata, args=(record, metadata), daemon=True)
        self._storing.append(thread)
        thread.start()

    def wait_for_metadata(self) -> None:
        """Wait a little until the metadata is stored."""
        for thread in self._storing:
            thread.join(METADATA_SECONDS)

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
        if self.record is not None:
            self._measured = usage_log.Measured(str(self.record.id))
        try:
            with text_required():
                return runner.run(*args, **kwargs)
        except BaseException as error:
            if publish_utils.step_exception_info.get() is None:
                # ZenML keeps only what the step's function raises, and not what its module does.
                with contextlib.suppress(Exception):
                    publish_utils.step_exception_info.set(collect_exception_information(error))
            elif runner.raised is not None:
                # It is recorded; a hook may have ended with another one since.
                raise runner.raised  # noqa: B904 - its own cause stays.
            raise
        finally:
            # With its frames, which hold the step's memory.
            runner.raised = None
            self.store_usage()


class _Runner(StepRunner):
    """Extend ZenML's step runner to guard the user's code.

    Attributes:
        raised: What the step's function has raised.
    """

    guarded: Callable[[Callable[[], Any]], Any]
    raised: BaseException | None = None

    def _load_step(self) -> BaseStep:
        step = super()._load_step()
        call = step.call_entrypoint

        def call_entrypoint(**parameters: Any) -> Any:
            try:
                return self.guarded(lambda: call(**parameters))
            except BaseException as error:
                self.raised = error
                raise

        # The step is a copy of ZenML's, for this runner alone.
        step.call_entrypoint = call_entrypoint  # type: ignore[method-assign]
        return step


def retry_delays(step: Step) -> Iterator[float]:
    """Yield the seconds before each retry of a step."""
    retry = step.config.retry
    delay = float(retry.delay) if retry else 0.0
    while True:
        yield delay
        delay *= retry.backoff if retry else 1
