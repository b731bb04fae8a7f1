"""Look steps up in ZenML's cache, and record those that need not run.

ZenML's key of a step contains the path of the artifact store (`cache_utils.py:86`, ZenML 0.98.0). A
sandbox therefore gets the path of a local store as it is on the submitting machine.
"""

from __future__ import annotations

import contextlib
import logging
from uuid import UUID

from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.constants import ENV_ZENML_PREVENT_CLIENT_SIDE_CACHING, handle_bool_env_var
from zenml.enums import ExecutionStatus
from zenml.exceptions import EntityExistsError
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse, StepRunResponse
from zenml.orchestrators.step_run_utils import (
    StepRunRequestFactory,
    find_cacheable_invocation_candidates,
    publish_cached_step_run,
)
from zenml.stack import Stack
from zenml.utils import pagination_utils

from modalrun.run.events import StepState
from modalrun.zenml_api import compat

_PAGE = 1000
"""Step runs in one request."""

logger = logging.getLogger(__name__)


class Cache:
    """Look steps of one run up in the cache, and record those that are found."""

    def __init__(
        self, snapshot: PipelineSnapshotResponse, run: PipelineRunResponse, stack: Stack
    ) -> None:
        self._snapshot = snapshot
        self._run = run
        self._skipped = snapshot.pipeline_configuration.steps_to_skip
        self._requests = _Requests(snapshot=snapshot, pipeline_run=run, stack=stack)

    def record(self, step: str) -> bool:
        """Record a step as CACHED if it is in the cache; return whether it is.

        The steps that it waits for must be done. If its cache function needs packages that are
        missing here, ZenML looks it up where it runs.
        """
        if not self._requests.has_caching_enabled(step):
            return False
        return self._record(step)

    def _record(self, step: str) -> bool:
        request = self._requests.create_request(step)
        try:
            self._requests.populate_request(request)
        except Exception as error:
            logger.debug("The step %s can't be looked up in the cache: %s", step, error)
            return False
        if request.status not in {ExecutionStatus.CACHED, ExecutionStatus.SKIPPED}:
            return False
        # "Exists": the answer to an earlier call was lost.
        with contextlib.suppress(EntityExistsError):
            recorded = publish_cached_step_run(request, pipeline_run=self._run)
            compat.remember(self._requests, recorded)
        return True

    def record_all(self) -> dict[str, StepState]:
        """Record every step that need not run, parents first; return the state of each.

        This is ZenML's client-side caching (`step_run_utils.create_cached_step_runs`), and what it
        does for a replay (`execution/pipeline/utils.py:158`, 0.98.0).
        """
        steps = self._snapshot.step_configurations
        done: dict[str, StepState] = {}
        for step in steps:
            if step in self._skipped and self._record(step):
                done[step] = "skipped"
        if handle_bool_env_var(ENV_ZENML_PREVENT_CLIENT_SIDE_CACHING, default=False):
            return done
        visited: set[str] = set()
        while found := find_cacheable_invocation_candidates(self._snapshot, {*done}) - visited:
            visited |= found
            done |= {step: "cached" for step in sorted(found) if self.record(step)}
        return done


def steps_of(run_id: UUID) -> dict[str, StepRunResponse]:
    """Return the last attempt of each step of a run as ZenML has it, the oldest step first."""
    found = pagination_utils.depaginate(
        Client().list_run_steps, pipeline_run_id=run_id, hydrate=True, size=_PAGE
    )
    return {step.name: step for step in sorted(found, key=lambda one: (one.created, one.version))}


class _Requests(StepRunRequestFactory):
    """Create ZenML's requests for step runs without importing the step's module.

    The driver's image may lack its packages, and the import takes time. ZenML takes docstring and
    source code of a cached step from the original record (`step_run_utils.py:298`); the cache key
    holds a hash of the code, made when it was compiled. Of the run that this one reruns, all steps
    are read with one request.
    """

    _originals: dict[str, StepRunResponse] | None = None

    def _get_original_step_run(self, invocation_id: str) -> StepRunResponse | None:
        if self._originals is None:
            original = self.pipeline_run.original_run
            self._originals = steps_of(original.id) if original else {}
        return self._originals.get(invocation_id)

    def _get_docstring_and_source_code(self, step: Step) -> tuple[str | None, str | None]:
        return None, None
