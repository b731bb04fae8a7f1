"""Read and write one run's records for its driver. Not for use by several threads."""

from __future__ import annotations

from collections.abc import Sequence

from zenml.orchestrators.step_launcher import StepLauncher

from modalrun.run.metadata import StepMetadata, step_waits_metadata
from modalrun.run.records import StepRecord
from modalrun.run.usage import StepUsage
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records import run_access, step_records, updates
from modalrun.zenml_api.records.cache import Cache


class RunRecorder:
    """One run's records in ZenML.

    A method that raises `AuthenticationError` or `ConnectionLostError` can be called again.
    """

    def __init__(self, run_id: str) -> None:
        """Load the run and its deployment."""
        self._run_id = run_id
        with translated():
            self._loaded = LoadedRun(run_id, closed=True)

    def set_running(self) -> None:
        """Record that the run has begun, as ZenML's own launcher does with a run's first step."""
        snapshot = self._loaded.snapshot
        step = next(iter(snapshot.step_configurations.values()))
        with translated():
            launcher = StepLauncher(snapshot, step, self._loaded.orchestrator_run_id)
            self._loaded.run, _ = launcher._create_or_reuse_run()

    def states(self) -> dict[str, StepRecord]:
        """Return the last record of each step that has one, with its metadata."""
        return step_records.step_states(self._run_id, detailed=True)

    def step_state(self, step: str) -> StepRecord | None:
        """Return the last record of a step, with its reason; None if there is none."""
        return step_records.step_state(self._run_id, step, detailed=True)

    def cached(self, step: str) -> bool:
        """Record a step as CACHED if it is in ZenML's cache; return whether it is.

        The steps that it waits for must be done.
        """
        with translated():
            return Cache(self._loaded.snapshot, self._loaded.run, self._loaded.stack).record(step)

    def fail_step(
        self, step: str, reason: str, *, final: bool = False, lines: Sequence[str] = ()
    ) -> StepRecord | None:
        """Record a step's failure; see `step_records.fail_step`."""
        return step_records.fail_step(self._run_id, step, reason, final=final, lines=lines)

    def stop_step(self, step: str, reason: str) -> StepRecord | None:
        """Record that a running step was stopped; see `step_records.stop_step`."""
        return step_records.stop_step(self._run_id, step, reason)

    def record_metadata(self, step_run: str, metadata: StepMetadata | StepUsage) -> None:
        """Store metadata with a step's record; see `step_records.record_metadata`."""
        step_records.record_metadata(step_run, metadata)

    def store_waits(self, waits: dict[str, str]) -> None:
        """Store what steps wait for with the run, for `status`."""
        updates.publish_metadata(self._run_id, step_waits_metadata(waits))

    def stop_requested(self) -> bool:
        """Return whether ZenML records that the run is stopping or stopped."""
        return run_access.stop_requested(self._run_id)

    def finalize(self, reason: str, *, stopped: bool = False) -> bool:
        """Record the end of the run; see `updates.finalize_run`."""
        return updates.finalize_run(self._run_id, reason, stopped=stopped)
