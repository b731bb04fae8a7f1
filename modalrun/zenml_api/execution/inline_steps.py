"""Keep the inline steps of a dynamic run apart, which share its process.

A step with variables or secrets of its own runs alone. The steps that run are listed in a file, so
that after the death of the process its supervisor knows what to start again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenml.exceptions import RunInterruptedException

from modalrun.run import contract
from modalrun.run.events import StepState
from modalrun.run.failure import HANDLERS
from modalrun.run.reporting import emit_step_event, log_line
from modalrun.util.environment import restored_environment
from modalrun.util.shared_lock import SharedLock
from modalrun.zenml_api.execution.child_pipelines import child_of
from modalrun.zenml_api.records import step_records

if TYPE_CHECKING:
    from zenml.config.pipeline_configurations import PipelineConfiguration
    from zenml.config.step_configurations import StepConfiguration

_BEGUN = ("running", "retrying", "failed")

_OF_ISOLATED = ("gpu", "cpu_limit", "memory_limit")
"""Settings that the run sandbox of a `per_step` run does not take from the pipeline."""


class InlineSteps:
    """The inline steps of a dynamic run and of its child pipelines.

    Attributes:
        death: Why the run must end: its process has died, and no step was the cause. None if not.
        stopping: Set when the run was asked to stop.
    """

    def __init__(
        self,
        pipeline: PipelineConfiguration,
        death: tuple[str, list[tuple[str, str]], list[str]] | None,
        end_reason: Callable[[], str | None],
        isolates: bool,
    ) -> None:
        """Record the death of an earlier process of the run, if there was one.

        Args:
            pipeline: The configuration of the run, whose variables all steps share.
            death: Why it died, in a sentence; the steps that ran in it: the ids of their runs and
                their names; and the last lines that it has printed.
            end_reason: Returns why the process is ended from outside; None if it is not.
            isolates: Whether steps can have sandboxes of their own.
        """
        self.death: str | None = None
        self.stopping = threading.Event()
        self._pipeline = pipeline
        self._end_reason = end_reason
        self._isolates = isolates
        self._noted: set[str] = set()
        self._file = Path(os.environ[contract.RUNNING_STEPS_FILE])
        self._lock = SharedLock()
        self._running: list[tuple[str, str]] = []
        self._suspects: set[tuple[str, str]] = set()
        self._listing = threading.Lock()
        if death is not None:
            reason, steps, lines = death
            self._record_death(reason, [(run_id, name) for run_id, name in steps], lines)

    def _record_death(self, reason: str, steps: list[tuple[str, str]], lines: list[str]) -> None:
        """Record a death of the process as the failure of the step that ran.

        If several ran, the one that caused it is not known. They run again, each one alone, and
        none has failed so far.
        """
        states = {step: step_records.step_state(*step) for step in steps}
        begun = [step for step, state in states.items() if state and state.status in _BEGUN]
        if len(begun) > 1:
            self._suspects = set(begun)
            return
        if not begun:
            self.death = reason
            return
        ((run_id, name),) = begun
        # A hook may have ended the process after the step's own failure, which is recorded.
        record = step_records.fail_step(run_id, name, reason, lines=lines)
        if record is not None:
            retried = record.status == "retrying"
            state: StepState = "retrying" if retried else "failed"
            reason = str(record.failure or reason)
            emit_step_event(child_of(run_id) + name, state, attempt=record.attempt, reason=reason)

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        """Say why, when ZenML's signal handler interrupts a step at the run's timeout."""
        try:
            yield
        except RunInterruptedException as error:
            reason, last = self._end_reason(), error.__traceback__
            if reason is None:
                raise
            # Without the lines of the handler: the step was not there.
            while last is not None and (after := last.tb_next) is not None:
                if after.tb_frame.f_code.co_filename.endswith(HANDLERS):
                    last.tb_next = None
                last = last.tb_next
            raise TimeoutError(reason).with_traceback(error.__traceback__) from None

    @contextlib.contextmanager
    def running(self, run_id: str, name: str, config: StepConfiguration) -> Iterator[None]:
        """Wait until a step may run, and list it while it runs."""
        step = (run_id, name)
        if self._isolates:
            self._note_ineffective(config)
        own = self._has_own_environment(config)
        with self._lock.held(alone=own or step in self._suspects):
            self._list(self._running.append, step)
            try:
                with restored_environment() if own else contextlib.nullcontext():
                    yield
            finally:
                self._list(self._running.remove, step)

    def _note_ineffective(self, config: StepConfiguration) -> None:
        """Say which settings of a step count only in a sandbox of its own, once a step."""
        shared = _orchestrator_settings(self._pipeline)
        kept = {name: value for name, value in shared.items() if name not in _OF_ISOLATED}
        own = _orchestrator_settings(config).items()
        names = sorted(name for name, value in own if value != kept.get(name))
        if names and config.name not in self._noted:
            self._noted.add(config.name)
            log_line(
                f"note: step `{config.name}` runs in the run sandbox, where these settings have no"
                f' effect: {", ".join(names)}. With runtime="isolated" it gets one of its own.'
            )

    def _has_own_environment(self, config: StepConfiguration) -> bool:
        """Return whether a step has variables or secrets that its pipeline has not."""
        shared = self._pipeline
        return not (
            config.environment.items() <= shared.environment.items()
            and set(config.secrets) <= set(shared.secrets)
        )

    def _list(self, change: Callable[[tuple[str, str]], None], step: tuple[str, str]) -> None:
        with self._listing:
            change(step)
            # Replaced as a whole: the process may die at any moment.
            with contextlib.suppress(OSError):
                new = self._file.with_suffix(".new")
                new.write_text(json.dumps(self._running), encoding="utf-8")
                new.replace(self._file)


def _orchestrator_settings(config: PipelineConfiguration | StepConfiguration) -> dict[str, Any]:
    """Return modalrun's settings of a pipeline or a step, as far as they were set."""
    found: dict[str, Any] = {}
    for key, values in config.settings.items():
        if re.split("[:.]", key)[0] == "orchestrator":
            found |= values.model_dump(mode="json", exclude_unset=True)
    return found
