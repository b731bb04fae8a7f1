"""What the driver asks of ZenML and tells it, for one run. Not for use by several threads."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.orchestrators.step_launcher import StepLauncher

from modalrun.run.metadata import StepMetadata
from modalrun.run.records import StepRecord
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.execution.steps import LoadedRun
from modalrun.zenml_api.records import runs, step_records
from modalrun.zenml_api.records.cache import Cache

RUNS_COMPARED = 5
"""How many earlier runs tell how long a step takes."""


class RunRecorder:
    """One run's records in ZenML, as the driver reads and writes them.

    Every method raises `AuthenticationError` or `ConnectionLostError` where ZenML's server refuses
    or is not there; nothing is half done then, and the call can be made again.
    """

    def __init__(self, run_id: str) -> None:
        """Load the run and its deployment.

        Args:
            run_id: ZenML's run id.
        """
        self.run_id = run_id
        with translated():
            self._loaded = LoadedRun(run_id)

    def set_running(self) -> None:
        """Record that the run has begun, as ZenML's own launcher does with a run's first step."""
        snapshot = self._loaded.snapshot
        step = next(iter(snapshot.step_configurations.values()))
        with translated():
            launcher = StepLauncher(snapshot, step, self._loaded.orchestrator_run_id)
            self._loaded.run, _ = launcher._create_or_reuse_run()

    def states(self) -> dict[str, StepRecord]:
        """The last record of each step with its facts; steps that have none are left out."""
        return step_records.step_states(self.run_id, detailed=True)

    def done(self) -> set[str]:
        """The steps that have succeeded."""
        return {name for name, state in self.states().items() if state.successful}

    def step_state(self, step: str) -> StepRecord | None:
        """The last record of one step; None where there is none."""
        return step_records.step_state(self.run_id, step)

    def cached(self, step: str) -> bool:
        """Record a step as CACHED if it is in ZenML's cache; returns whether it is.

        The steps that it waits for have to be done.
        """
        with translated():
            return Cache(self._loaded.snapshot, self._loaded.run, self._loaded.stack).record(step)

    def fail_step(self, step: str, reason: str, *, final: bool = False) -> StepRecord | None:
        """Record a step's failure; see `step_records.fail_step`."""
        return step_records.fail_step(self.run_id, step, reason, final=final)

    def stop_step(self, step: str, reason: str) -> StepRecord | None:
        """Record that a running step was ended; see `step_records.stop_step`."""
        return step_records.stop_step(self.run_id, step, reason)

    def record_exit(self, step_run: str, metadata: StepMetadata) -> None:
        """Store what is known of a sandbox that has ended with the record of its step.

        A failure to do so is only logged.

        Args:
            step_run: ZenML's step run id.
            metadata: Fields that are None are left as they are stored.
        """
        step_records.record_metadata(step_run, metadata)

    def stop_requested(self) -> bool:
        """Whether somebody has asked ZenML to stop the run."""
        with translated():
            run = Client().zen_store.get_run(self._loaded.run.id, hydrate=False)
        return run.status in {ExecutionStatus.STOPPING, ExecutionStatus.STOPPED}

    def finalize(self, reason: str, *, stopped: bool = False) -> bool:
        """Record the end of the run; see `runs.finalize_run`."""
        return runs.finalize_run(self.run_id, reason, stopped=stopped)

    def expected_seconds(self) -> dict[str, float]:
        """How long each step takes: the median of the last few completed runs of this pipeline.

        Steps that have not run lately, or only as cached ones, are left out.
        """
        if self._loaded.run.pipeline is None:
            return {}
        with translated():
            client = Client()
            earlier = client.list_pipeline_runs(
                pipeline_id=self._loaded.run.pipeline.id,
                project=client.active_project.id,
                status=ExecutionStatus.COMPLETED.value,
                sort_by="desc:created",
                size=RUNS_COMPARED,
            ).items
            return median_seconds([step_records.seconds_of_steps(str(run.id)) for run in earlier])


def median_seconds(runs_: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each step's median over several runs."""
    names = dict.fromkeys(name for run in runs_ for name in run)
    return {name: statistics.median(run[name] for run in runs_ if name in run) for name in names}
