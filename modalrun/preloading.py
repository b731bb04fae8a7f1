"""What the local Modal server is asked to have in memory before a sandbox of ours starts."""

from __future__ import annotations

from modalrun.localmodal.preload import Preload

PRELOAD = Preload(
    # What `modalrun.zenml_api` imports, and the stores, which ZenML imports when it needs them.
    # Nothing of modalrun and nothing of the user: both may change while the server runs.
    modules=(
        "zenml.client",
        "zenml.execution.step.utils",
        "zenml.orchestrators.publish_utils",
        "zenml.pipelines.run_utils",
        "zenml.integrations.registry",
        "zenml.zen_stores.sql_zen_store",
        "zenml.zen_stores.rest_zen_store",
    ),
    programs=("modalrun.driver",),
    # As the plan sets it in every sandbox (`modalrun/plan.py`).
    env={"PYTHONUNBUFFERED": "1"},
    # The home folder is looked at for where a user's own packages would be. `modalrun.zenml_api`
    # sees to the source root.
    late=("HOME", "ZENML_CUSTOM_SOURCE_ROOT"),
)
"""The imports of a step's process, which are most of its time."""
