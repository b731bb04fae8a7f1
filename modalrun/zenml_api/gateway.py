"""Describe the functions on ZenML that other packages call, so that tests can pass a fake.

Neither importing this module nor `zenml_gateway` imports ZenML; its functions do where they must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from modalrun.plan.image_recipe import RegistryCredentials
    from modalrun.plan.model import Plan
    from modalrun.run.artifacts import Artifact
    from modalrun.run.records import App, DeploymentRecord, RunRecord, StepRecord
    from modalrun.run.source import Source
    from modalrun.spec.run_spec import RunSpec
    from modalrun.zenml_api.compiling.compile import Compiled


class ZenMLGateway(Protocol):
    """The functions of `modalrun.zenml_api.surface`; their docstrings are there."""

    def resolve_images(
        self, plan: Plan, compiled: Compiled
    ) -> tuple[Plan, RegistryCredentials | None]:
        """Fill in what the plan's images need of the stack's container registry."""

    def publish_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> None:
        """Store metadata with the run."""

    def stop_requested(self, run_id: str) -> bool:
        """Return whether the run is stopping or stopped."""

    def record_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> bool:
        """Store where the run sandbox is; return whether the run was stopped meanwhile."""

    def read_run(self, run_id: str) -> RunRecord:
        """Read the run's record."""

    def read_run_and_steps(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]]:
        """Read the run's record and those of all steps, parents before children."""

    def active_user(self) -> str:
        """Return the id of the user, or service account, that this process acts as."""

    def matching_runs(self, text: str) -> list[RunRecord]:
        """Return the runs with this name, or with an id that is or starts like this."""

    def newest_runs(
        self,
        *,
        limit: int,
        states: Sequence[str] = (),
        pipeline: str | None = None,
        since: datetime | None = None,
        everybodys: bool = False,
    ) -> list[RunRecord]:
        """Return the newest runs of the active project, newest first."""

    def step_names(self, run_id: str) -> tuple[str, ...] | None:
        """Return the names of all steps; None for a dynamic pipeline, which may add some."""

    def step_attempts(self, runs: Sequence[RunRecord]) -> dict[str, list[StepRecord]]:
        """Return every attempt of the steps of several runs, by run id."""

    def artifacts_of(self, run_id: str, *, visualizations: bool = False) -> list[Artifact]:
        """Return what the run's steps have made, also with what ZenML has stored to show."""

    def unfinished_steps(self, run_id: str) -> tuple[str, ...]:
        """Return the names of the steps that are recorded as unfinished."""

    def credentials_of(self, run_id: str, target: str) -> tuple[str, str] | None:
        """Return the Modal token of the run's orchestrator; None for Modal's configuration."""

    def read_source(self, run_id: str) -> Source | None:
        """Read the record of the run's source tree; None where there is none."""

    def deployment_of(self, run_id: str) -> DeploymentRecord:
        """Return what identifies the run's deployment."""

    def load_deployment_of_run(self, run_id: str, spec: RunSpec) -> Compiled:
        """Load the run's deployment as a submission of it does."""

    def app_of(self, run_id: str) -> App | None:
        """Return the app that the run's deployment names; None if that was deleted."""

    def driver_environment(self, run_id: str) -> dict[str, str]:
        """Return the variables by which a driver reaches ZenML; they hold its credentials."""

    def record_stop_request(self, run_id: str) -> None:
        """Record that the run's driver was asked to stop."""

    def mark_stopping(self, run_id: str, reason: str) -> bool:
        """Record that the run is to stop; return whether it was unfinished."""

    def finalize_run(
        self, run_id: str, reason: str, *, stopped: bool = False, told: Sequence[str] = ()
    ) -> bool:
        """Record the end of the run and of its unfinished steps; return whether any was open."""


def zenml_gateway() -> ZenMLGateway:
    """Return the real gateway."""
    from modalrun.zenml_api import surface

    return surface
