"""What the local Modal server is asked to have in memory before a sandbox of ours starts."""

from __future__ import annotations

from modalrun.localmodal.preload import Preload

PRELOAD = Preload(
    # What `modalrun.zenml_api` imports, and what ZenML 0.98.0 imports when it opens its store,
    # makes a stack of components and runs a step (the modules that a run has in the end).
    # Nothing of modalrun and nothing of the user: both may change while the server runs.
    modules=(
        "zenml.client",
        "zenml.execution.step.utils",
        "zenml.execution.utils",
        "zenml.orchestrators.publish_utils",
        "zenml.pipelines.pipeline_definition",
        "zenml.pipelines.run_utils",
        "zenml.zen_stores.sql_zen_store",
        # As the first query does: half a second.
        "sqlalchemy.orm:configure_mappers",
        "zenml.zen_stores.rest_zen_store",
        "zenml.zen_stores.migrations.backup.sqlalchemy",
        "sqlite3",
        "zenml.alerter",
        "zenml.annotators",
        "zenml.container_registries",
        "zenml.data_validators",
        "zenml.deployers",
        "zenml.experiment_trackers",
        "zenml.feature_stores",
        "zenml.image_builders",
        "zenml.log_stores",
        "zenml.log_stores.artifact.artifact_log_exporter",
        "zenml.model_deployers",
        "zenml.model_registries",
        "zenml.sandboxes",
        "zenml.step_operators",
        # Imports the description of each integration.
        "zenml.integrations.registry:integration_registry.get_installed_integrations",
        "packaging.requirements",
        # For the driver.
        "modal",
    ),
    programs=("modalrun.driver",),
    # As the plan sets it in every sandbox (`modalrun/plan.py`).
    env={"PYTHONUNBUFFERED": "1"},
    # The home folder is looked at for where a user's own packages would be. `modalrun.zenml_api`
    # sees to the source root.
    late=("HOME", "ZENML_CUSTOM_SOURCE_ROOT"),
)
"""The imports of a step's process, which are most of its time."""
