"""What an order needs to know of a compiled pipeline and of a run. Written against ZenML 0.98.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from zenml.client import Client
from zenml.orchestrators.utils import is_setting_enabled

from modalrun.errors import NotFoundError
from modalrun.run.policies import StepPolicy
from modalrun.zenml_api.compiling.compile import Compiled
from modalrun.zenml_api.errors import translated


def failure_mode(compiled: Compiled) -> str:
    """ZenML's `ExecutionMode` of a pipeline, as its value."""
    return str(compiled.snapshot.pipeline_configuration.execution_mode.value)


def pipeline_docker(compiled: Compiled) -> dict[str, Any]:
    """The Docker settings of a pipeline as ZenML stores them."""
    settings = compiled.snapshot.pipeline_configuration.model_dump(mode="json")["settings"]
    return dict(settings.get("docker") or {})


def policies(compiled: Compiled) -> dict[str, StepPolicy]:
    """The policy of each step."""
    pipeline = compiled.snapshot.pipeline_configuration
    found = {}
    for name, step in compiled.snapshot.step_configurations.items():
        retry = step.config.retry
        found[name] = StepPolicy(
            retries=retry.max_retries if retry else 0,
            delay=retry.delay if retry else 0,
            backoff=retry.backoff if retry else 1,
            caches=is_setting_enabled(
                is_enabled_on_step=step.config.enable_cache,
                is_enabled_on_pipeline=pipeline.enable_cache,
            ),
        )
    return found


def run_status(run_id: str) -> str:
    """ZenML's word for the state of a run.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        try:
            return str(Client().zen_store.get_run(UUID(run_id), hydrate=False).status.value)
        except KeyError as error:
            raise NotFoundError(f"ZenML has no run {run_id}.") from error


def run_metadata(run_id: str) -> Mapping[str, Any]:
    """What is stored with a run.

    Raises:
        NotFoundError: There is no such run.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    with translated():
        try:
            return dict(Client().zen_store.get_run(UUID(run_id)).run_metadata)
        except KeyError as error:
            raise NotFoundError(f"ZenML has no run {run_id}.") from error
