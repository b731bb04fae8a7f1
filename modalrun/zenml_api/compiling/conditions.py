"""Note what a deployment was compiled against, so that it can be submitted without ZenML."""

from __future__ import annotations

import contextlib

import zenml
from zenml.client import Client
from zenml.config.step_configurations import Step
from zenml.models import StackResponse
from zenml.orchestrators.cache_utils import generate_cache_key

from modalrun.plan.conditions import Conditions
from modalrun.run.run_plan import Target
from modalrun.zenml_api.compiling.compile import Compiled
from modalrun.zenml_api.component import component_values
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.stacks import orchestrator_of


def conditions_of(compiled: Compiled, target: Target) -> Conditions:
    """Return what a pipeline that was compiled for a target depends on in ZenML."""
    with translated():
        project = Client().active_project.id
        keys = {}
        for name, step in compiled.snapshot.step_configurations.items():
            if not step.spec.upstream_steps and not _depends_on_more(step):
                # What has no key is looked up where it runs.
                with contextlib.suppress(Exception):
                    store = compiled.stack.artifact_store
                    keys[name] = generate_cache_key(step, {}, store, project)
        model = compiled.stack._model
        assert isinstance(model, StackResponse)
        return Conditions(
            zenml=zenml.__version__,
            project=str(project),
            stack=_changes_of(model),
            cache_keys=keys,
            docker_digest=compiled.docker_digest,
            built=target == "modal",
            has_token=component_values(orchestrator_of(model)).token is not None,
        )


def _changes_of(stack: StackResponse) -> dict[str, str]:
    """Return the ids of a stack and its components, and when each was changed last."""
    changed = {str(stack.id): stack.updated.isoformat()}
    for components in stack.components.values():
        changed |= {str(one.id): one.updated.isoformat() for one in components}
    return changed


def _depends_on_more(step: Step) -> bool:
    """Return whether the cache key of a step depends on files, code or artifacts."""
    policy, config = step.config.cache_policy, step.config
    return bool(
        policy.file_dependencies
        or policy.source_dependencies
        or policy.cache_func
        or config.external_input_artifacts
        or config.model_artifacts_or_metadata
        or config.client_lazy_loaders
    )
