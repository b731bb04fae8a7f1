"""Choose how records are read and written: by ZenML's own client, or by requests to its server.

Neither this module nor what it chooses for a server imports ZenML.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Literal, Protocol

from modalrun.util import garbage_collection
from modalrun.zenml_api.records.responses import Page, StoredDeployment, StoredRun, StoredStep

if TYPE_CHECKING:
    from modalrun.zenml_api.component import OrchestratorComponent


class Store(Protocol):
    """Read and write records. Filters are those of ZenML's lists; the project is the active one.

    What does not exist raises KeyError, a change that ZenML does not allow `NotAllowedError`.
    """

    def run(self, run_id: str, *, hydrate: bool = True) -> StoredRun:
        """Read a run, with `hydrate` also its metadata."""

    def runs(self, *, hydrate: bool, **filters: Any) -> Page[StoredRun]:
        """Read a page of runs, newest first."""

    def step(self, step_run_id: str, *, hydrate: bool = True) -> StoredStep:
        """Read a step's attempt, with `hydrate` also its metadata and the reason of a failure."""

    def steps(self, *, hydrate: bool, **filters: Any) -> Page[StoredStep]:
        """Read a page of attempts at steps, oldest first."""

    def deployment(self, deployment_id: str, only: list[str]) -> StoredDeployment:
        """Read a snapshot, without the configuration of other steps than these."""

    def orchestrator(self, stack_id: str) -> OrchestratorComponent:
        """Read the orchestrator of a stack."""

    def active_user(self) -> str:
        """Return the id of the user, or service account, that this process acts as."""

    def update_run(self, run_id: str, **changes: Any) -> StoredRun:
        """Change a run: `status`, `status_reason`."""

    def update_step(self, step_run_id: str, **changes: Any) -> StoredStep:
        """Change a step's attempt: `status`, `end_time`, `exception_info`."""

    def add_metadata(
        self, kind: Literal["pipeline_run", "step_run"], owner: str, values: Mapping[str, Any]
    ) -> None:
        """Store metadata with a run or a step's attempt."""


class _Choice:
    store: Store | None = None


def current() -> Store:
    """Return the store of this process: ZenML's own client, unless `use` has chosen another one."""
    if _Choice.store is None:
        from modalrun.zenml_api.records.zenml_store import ZenMLStore

        _Choice.store = ZenMLStore()
    return _Choice.store


def use(store: Store | None) -> None:
    """Choose the store of this process; None for ZenML's own client."""
    _Choice.store = store


def open_zenml() -> None:
    """Import ZenML and open its store, for what only its own client can do.

    Raises:
        AuthenticationError, ConnectionLostError: As for `retry.open_store`.
    """
    # ZenML prints to stdout while it is imported; stdout is for data.
    with garbage_collection.paused(), redirect_stdout(sys.stderr):
        from modalrun.zenml_api.retry import open_store

        # The store's own imports are half of all.
        open_store()
