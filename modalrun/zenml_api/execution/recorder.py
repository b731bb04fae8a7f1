"""Read and write one run's records for its driver. Not for use by several threads."""

from __future__ import annotations

from functools import partial

from zenml.orchestrators.step_launcher import StepLauncher

from modalrun.run.metadata import step_waits_metadata
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records import run_access, step_records, updates
from modalrun.zenml_api.records.cache import Cache


class RunRecorder:
    """Read and write the records of one run in ZenML, with the functions of `records`.

    A method that raises `AuthenticationError` or `ConnectionLostError` can be called again.
    """

    def __init__(self, run_id: str) -> None:
        """Load the run and its deployment."""
        self._run_id = run_id
        with translated():
            self._loaded = LoadedRun(run_id, closed=True)
        self.states = partial(step_records.step_states, run_id)
        self.step_state = partial(step_records.step_state, run_id, detailed=True)
        self.fail_step = partial(step_records.fail_step, run_id)
        self.stop_step = partial(step_records.stop_step, run_id)
        self.record_metadata = step_records.record_metadata
        self.stop_requested = partial(run_access.stop_requested, run_id)
        self.starts_nothing = partial(run_access.starts_nothing, run_id)
        self.withdrawn = partial(run_access.withdrawn, run_id)
        self.finalize = partial(updates.finalize_run, run_id)

    def set_running(self) -> None:
        """Record that the run has begun, as ZenML's own launcher does with a run's first step."""
        snapshot = self._loaded.snapshot
        step = next(iter(snapshot.step_configurations.values()))
        with translated():
            launcher = StepLauncher(snapshot, step, self._loaded.orchestrator_run_id)
            self._loaded.run, _ = launcher._create_or_reuse_run()

    def cached(self, step: str) -> bool:
        """Record a step as CACHED if it is in ZenML's cache; return whether it is.

        The steps that it waits for must be done.
        """
        with translated():
            return Cache(self._loaded.snapshot, self._loaded.run, self._loaded.stack).record(step)

    def store_waits(self, waits: dict[str, str]) -> None:
        """Store what steps wait for with the run, for `status`."""
        updates.publish_metadata(self._run_id, step_waits_metadata(waits))
