"""Run one step, for a new record or again for an existing one (`launcher`)."""

from __future__ import annotations

import contextlib
import importlib
import operator
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NoReturn, Protocol
from uuid import UUID

from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.enums import ExecutionStatus, StepRuntime
from zenml.utils.env_utils import get_runtime_environment, temporary_environment
from zenml.utils.logging_utils import LoggingContext

from modalrun.run.failure import trace_of
from modalrun.run.metadata import StepMetadata
from modalrun.run.reporting import log_line
from modalrun.run.zenml_modules import DATABASE_MODULES, ZENML_MODULES
from modalrun.util import line_ends
from modalrun.zenml_api import config_files
from modalrun.zenml_api.errors import database_errors
from modalrun.zenml_api.execution import containment
from modalrun.zenml_api.execution.exception_text import require_text
from modalrun.zenml_api.execution.launcher import Launcher
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records.responses import STOPPED
from modalrun.zenml_api.records.step_records import end_step, honour_stop_request
from modalrun.zenml_api.retry import while_database_fails

FinalStatus = Literal["completed", "failed", "stopped", "running", "not run"]
"""ZenML's record of a step or run, as far as it matters at the end.

"running": nothing final. "not run": another step has failed, and ZenML lets no more begin.
"""


def import_ahead() -> None:
    """Import ahead what ZenML imports when it opens its store and runs a step, for later forks."""
    skipped = DATABASE_MODULES if config_files.has_server() else frozenset()
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
            step_run: The id of the record to execute again; None for a new record.
            metadata: Describes this sandbox; stored with the record as soon as there is one.
        """
        self._loaded = loaded
        self._again = UUID(step_run) if step_run else None
        self._step = self._configuration(name)
        self._launcher = Launcher(
            self._loaded.snapshot, self._step, self._loaded.orchestrator_run_id, metadata
        )

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
            if self._recorded_status() not in {"stopped", "not run"}:
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
            self._launcher.store_usage()
            self._launcher.wait_for_metadata()
            with contextlib.suppress(Exception):
                _flush_logs()
            signals.leave()

    def _recorded_status(self) -> FinalStatus:
        client = Client()
        if (record := self._launcher.record) is not None:
            return final_status(client.zen_store.get_run_step(record.id, hydrate=False).status)
        # It could not be created: an earlier sandbox was quicker, or the run is over or stopping.
        found = client.list_run_steps(
            pipeline_run_id=self._loaded.run.id,
            name=self._step.spec.invocation_id,
            sort_by="desc:version",
            size=1,
            project=client.active_project.id,
        )
        if found.total and found[0].status != ExecutionStatus.RETRYING:
            return final_status(found[0].status)
        run = client.zen_store.get_run(self._loaded.run.id, hydrate=False)
        if run.status == ExecutionStatus.FAILED and not run.in_progress:
            return "not run"
        if found.total:
            return "failed"
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


def _flush_logs() -> None:
    """Store what the step has printed; the end of one of two logging contexts doesn't do it."""
    if (logs := LoggingContext.get()) is not None:
        logs.end()
        Client().active_stack.log_store.flush(blocking=True)
