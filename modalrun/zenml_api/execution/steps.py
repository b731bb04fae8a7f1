"""Load a run in a process that runs steps of it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus, StoreType
from zenml.execution.pipeline.utils import prevent_pipeline_execution
from zenml.models import PipelineSnapshotResponse
from zenml.utils import source_utils

from modalrun.errors import NoRunError
from modalrun.zenml_api import compat
from modalrun.zenml_api.lazy_integrations import activate_lazily
from modalrun.zenml_api.orchestrator import ModalOrchestrator
from modalrun.zenml_api.retry import open_store
from modalrun.zenml_api.stacks import load_stack

NOT_BEGUN = {ExecutionStatus.INITIALIZING, ExecutionStatus.PROVISIONING}
"""The statuses of a run that its first step sets to running (`sql_zen_store.py:7329`).

An isolated step's record has them too: it is made before its sandbox.
"""

POLL_SECONDS = 0.05


class LoadedRun:
    """A run and its deployment, loaded from ZenML in a process that runs steps of it.

    Attributes:
        snapshot: Its deployment.
        stack: Its stack, with our orchestrator in it.
    """

    def __init__(
        self,
        run_id: str,
        only: Sequence[str] | None = None,
        *,
        closed: bool = False,
        begun: bool = False,
        orchestrator: type[ModalOrchestrator] = ModalOrchestrator,
    ) -> None:
        """Load the run and its deployment, and prepare this process to run steps.

        Args:
            only: Load the configuration of these steps only; a large pipeline's is long.
            closed: Whether this process runs no step, and needs no component of the stack.
            begun: Whether to wait until another process has begun the run's first step.
            orchestrator: The class of the orchestrator in its stack.
        """
        _set_source_root()
        open_store(in_sandbox=True)
        client = Client()
        try:
            self.run = client.zen_store.get_run(UUID(run_id))
        except KeyError as error:
            raise NoRunError(f"ZenML has no run {run_id}.") from error
        self.load_snapshot(only)
        if self.snapshot.stack is None:
            raise RuntimeError(f"The run {run_id} has lost its stack.")
        # The client keeps it, with the details that a request for the snapshot's own would bring.
        stack = client.active_stack_model
        if stack.id != self.snapshot.stack.id:
            stack = self.snapshot.stack
        self.stack = load_stack(stack, closed=closed, orchestrator=orchestrator)
        activate_lazily()
        self._contexts = ExitStack()
        # A pipeline called from a step's module must not start a run of its own.
        self._contexts.enter_context(prevent_pipeline_execution())
        # ZenML would request the run again for each step, and list this process's packages first.
        while begun and self.run.status in NOT_BEGUN:
            time.sleep(POLL_SECONDS)
            self.run = client.zen_store.get_run(UUID(run_id))
        known = None if self.run.status in NOT_BEGUN else self.run
        self._contexts.enter_context(compat.execution_context(known))

    def load_snapshot(self, only: Sequence[str] | None) -> None:
        """Load the deployment, with the configuration of all steps or of these only."""
        # The properties of the run's own copy would load all steps' configurations.
        if self.run.snapshot is None:
            raise RuntimeError(f"The run {self.run.id} has lost its deployment.")
        self.snapshot = Client().zen_store.get_snapshot(
            self.run.snapshot.id, step_configuration_filter=list(only) if only else None
        )

    @property
    def orchestrator_run_id(self) -> str:
        """The id that ties the steps in a sandbox to their run."""
        # A child pipeline's run has one of its own, which the sandbox's environment doesn't name.
        return self.run.orchestrator_run_id or self.stack.orchestrator.get_orchestrator_run_id()


_ahead: dict[str, LoadedRun] = {}
"""The run that `load_ahead` has loaded before this process was forked, by its id."""

_compiled: set[str] = set()
"""The runs of which it has also compiled the queries for a step."""

AHEAD_STEPS = 50
"""How many of the steps that follow a step are loaded with it: of a large pipeline not all."""


def load_ahead(run_id: str, step: str) -> Collection[str]:
    """Load a run for the forks of this process that run its steps; disconnect from ZenML.

    Call it while a step runs that begins the run, or has begun.

    Returns:
        The steps that a fork needs to request nothing for, before it makes their records.
    """
    open_store()
    # Without its class: the modules of the other kind are not imported.
    store: Any = Client().zen_store
    try:
        if run_id not in _ahead:
            _ahead[run_id] = LoadedRun(run_id, only=[step], begun=True)
        loaded = _ahead[run_id]
        if following := _following(loaded.snapshot, step):
            loaded.load_snapshot([step, *following])
        if run_id not in _compiled and store.type == StoreType.SQL:
            _compile_queries(store.engine, run_id, step)
            _compiled.add(run_id)
        return set(loaded.snapshot.step_configurations)
    finally:
        if store.type == StoreType.SQL:
            store.engine.dispose()
        else:
            store.session.close()


def _following(snapshot: PipelineSnapshotResponse, step: str) -> list[str]:
    """Return the next steps of a static pipeline."""
    names = [one.invocation_id for one in spec.steps] if (spec := snapshot.pipeline_spec) else []
    later = itertools.dropwhile(lambda name: name != step, names)
    return list(itertools.islice(later, 1, AHEAD_STEPS + 1))


def _compile_queries(engine: Any, run_id: str, step: str) -> None:
    """Have SQLAlchemy compile what ZenML asks for the record of each new step (0.98.0).

    A fork has the compiled statements of its parent.
    """
    from sqlmodel import Session
    from zenml.zen_stores.schemas import StepRunSchema

    while not (found := Client().list_run_steps(pipeline_run_id=run_id, name=step)).total:
        time.sleep(POLL_SECONDS)
    with Session(engine) as session:
        record = session.get_one(StepRunSchema, found[0].id)
        session.refresh(record)
        record.to_model(include_metadata=True, include_resources=True)


def load(run_id: str, step: str) -> LoadedRun:
    """Load a run for one of its steps."""
    if (loaded := _ahead.get(run_id)) is None:
        return LoadedRun(run_id, only=[step])
    _set_source_root()
    if step not in loaded.snapshot.step_configurations:
        loaded.load_snapshot([step])
    return loaded


def _set_source_root() -> None:
    """Have ZenML import the user's modules from this process's source tree.

    ZenML may have been imported before there was one (`submit.preload`, `driver.step_worker`).
    """
    if root := os.environ.get("ZENML_CUSTOM_SOURCE_ROOT"):
        source_utils.set_custom_source_root(root)
