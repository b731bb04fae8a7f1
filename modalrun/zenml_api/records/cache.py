"""Look steps up in ZenML's cache, and record those that need not run.

ZenML's key of a step contains the path of the artifact store (`cache_utils.py:86`, ZenML 0.98.0). A
sandbox therefore gets the path of a local store as it is on the submitting machine.
"""

from __future__ import annotations

import contextlib
import logging

from zenml.config.step_configurations import Step
from zenml.constants import ENV_ZENML_PREVENT_CLIENT_SIDE_CACHING, handle_bool_env_var
from zenml.enums import ExecutionStatus
from zenml.exceptions import EntityExistsError
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
from zenml.orchestrators.step_run_utils import (
    StepRunRequestFactory,
    find_cacheable_invocation_candidates,
    publish_cached_step_run,
)
from zenml.stack import Stack

from modalrun.zenml_api import compat

logger = logging.getLogger(__name__)


class Cache:
    """Look steps of one run up in the cache, and record those that are found."""

    def __init__(
        self, snapshot: PipelineSnapshotResponse, run: PipelineRunResponse, stack: Stack
    ) -> None:
        self._snapshot = snapshot
        self._run = run
        self._requests = _Requests(snapshot=snapshot, pipeline_run=run, stack=stack)

    def record(self, step: str) -> bool:
        """Record a step as CACHED if it is in the cache; return whether it is.

        The steps that it waits for must be done. If its cache function needs packages that are
        missing here, ZenML looks it up where it runs.
        """
        if not self._requests.has_caching_enabled(step):
            return False
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

    def record_all(self) -> frozenset[str]:
        """Record every step that is in the cache, parents first; return their names.

        This is ZenML's client-side caching (`step_run_utils.create_cached_step_runs`).
        """
        if handle_bool_env_var(ENV_ZENML_PREVENT_CLIENT_SIDE_CACHING, default=False):
            return frozenset()
        cached: set[str] = set()
        visited: set[str] = set()
        while found := find_cacheable_invocation_candidates(self._snapshot, cached) - visited:
            visited |= found
            cached |= {step for step in sorted(found) if self.record(step)}
        return frozenset(cached)


class _Requests(StepRunRequestFactory):
    """Create ZenML's requests for step runs without importing the step's module.

    The driver's image may lack its packages, and the import takes time. ZenML takes docstring and
    source code of a cached step from the original record (`step_run_utils.py:298`); the cache key
    holds a hash of the code, made when it was compiled.
    """

    def _get_docstring_and_source_code(self, step: Step) -> tuple[str | None, str | None]:
        return None, None
