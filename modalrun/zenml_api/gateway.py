"""Collect the functions on ZenML that other packages call, so that tests can replace them.

Importing this module does not import ZenML; its functions do where they must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modalrun.plan.image_recipe import BuiltByZenML
from modalrun.zenml_api.records import queries, run_access, stores, updates

if TYPE_CHECKING:
    from modalrun.plan.image_recipe import RegistryCredentials
    from modalrun.plan.model import Plan
    from modalrun.run.artifacts import Artifact
    from modalrun.spec.run_spec import RunSpec
    from modalrun.zenml_api.compiling.compile import Compiled


class ZenMLGateway:
    """Read and change what ZenML has of runs. Tests have a fake with the same methods."""

    active_user = staticmethod(queries.active_user)
    child_runs = staticmethod(queries.child_runs)
    environment_of = staticmethod(queries.environment_of)
    matching_runs = staticmethod(queries.matching_runs)
    newest_runs = staticmethod(queries.newest_runs)
    read_run = staticmethod(queries.read_run)
    read_run_and_steps = staticmethod(queries.read_run_and_steps)
    step_attempts = staticmethod(queries.step_attempts)
    step_names = staticmethod(queries.step_names)
    app_of = staticmethod(run_access.app_of)
    credentials_of = staticmethod(run_access.credentials_of)
    deployment_of = staticmethod(run_access.deployment_of)
    read_source = staticmethod(run_access.read_source)
    record_stop_request = staticmethod(run_access.record_stop_request)
    stop_requested = staticmethod(run_access.stop_requested)
    unfinished_steps = staticmethod(run_access.unfinished_steps)
    finalize_run = staticmethod(updates.finalize_run)
    mark_stopping = staticmethod(updates.mark_stopping)
    pause_again = staticmethod(updates.pause_again)
    publish_metadata = staticmethod(updates.publish_metadata)
    record_metadata = staticmethod(updates.record_metadata)

    @staticmethod
    def resolve_images(plan: Plan, compiled: Compiled) -> tuple[Plan, RegistryCredentials | None]:
        """Fill in what images need of a container registry (`compiling.image_builds`)."""
        kinds = {component.kind for component in compiled.stack_description.components}
        built = any(isinstance(recipe.base, BuiltByZenML) for recipe in plan.images.values())
        if not built and "container_registry" not in kinds:
            return plan, None
        from modalrun.zenml_api.compiling import image_builds

        return image_builds.resolve_images(plan, compiled)

    @staticmethod
    def with_visualizations(run_id: str, found: list[Artifact]) -> list[Artifact]:
        """Import ZenML, and do as `records.artifacts.with_visualizations`."""
        stores.open_zenml()
        from modalrun.zenml_api.records import artifacts

        return artifacts.with_visualizations(run_id, found)

    @staticmethod
    def driver_environment(run_id: str) -> dict[str, str]:
        """Import ZenML, and do as `records.runs.driver_environment`."""
        stores.open_zenml()
        from modalrun.zenml_api.records import runs

        return runs.driver_environment(run_id)

    @staticmethod
    def load_deployment_of_run(run_id: str, spec: RunSpec) -> Compiled:
        """Load the deployment of a run, for the target and the source tree of a run spec.

        Raises:
            NotFoundError: There is no such run, or its deployment was deleted.
            ModalrunError: As for `compiling.snapshots.from_zenml`.
        """
        stores.open_zenml()
        from zenml.utils import source_utils

        from modalrun.zenml_api.compiling import snapshots

        source_utils.set_custom_source_root(str(spec.source_root))
        return snapshots.from_zenml(run_access.deployment_id(run_id), spec)


ZENML = ZenMLGateway()
