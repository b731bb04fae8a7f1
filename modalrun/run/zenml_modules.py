"""List what ZenML imports when it opens its store, loads a stack and runs a step. Pure."""

from __future__ import annotations

ZENML_MODULES = (
    "zenml.client",
    "zenml.execution.step.utils",
    "zenml.execution.utils",
    "zenml.orchestrators.publish_utils",
    "zenml.pipelines.pipeline_definition",
    "zenml.pipelines.run_utils",
    "zenml.zen_stores.sql_zen_store",
    # The first query calls it; it takes half a second.
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
    # It imports the description of each integration.
    "zenml.integrations.registry:integration_registry.get_installed_integrations",
    "packaging.requirements",
    # Pydantic completes a model when it is first used.
    *(
        f"zenml.models:{name}Response.model_rebuild"
        for name in (
            "ArtifactVersion",
            "Component",
            "Flavor",
            "Logs",
            "Pipeline",
            "PipelineRun",
            "PipelineSnapshot",
            "Stack",
            "StepRun",
        )
    ),
)
"""The imports of `modalrun.zenml_api`, and those of ZenML 0.98.0 at these moments, in order.

`module:function` or `module:object.method` also calls the function.
"""

DATABASE_MODULES = frozenset(
    {
        "zenml.zen_stores.sql_zen_store",
        "sqlalchemy.orm:configure_mappers",
        "zenml.zen_stores.migrations.backup.sqlalchemy",
        "sqlite3",
    }
)
"""Those of them that a process with a ZenML server does without: a third of the imports' time."""
