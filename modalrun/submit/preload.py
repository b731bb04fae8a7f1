"""Define the modules that the local Modal server imports before a sandbox of modalrun starts."""

from __future__ import annotations

from modalrun.localmodal.preload import Preload
from modalrun.run.zenml_modules import ZENML_MODULES

PRELOAD = Preload(
    # No module of modalrun or the user: they may change meanwhile.
    modules=(
        *ZENML_MODULES,
        # The driver's SDK.
        "modal",
    ),
    programs=("modalrun.driver",),
    # The planner sets it in every sandbox.
    env={"PYTHONUNBUFFERED": "1"},
    # Python looks for a user's own packages in HOME, and `zenml_api.execution.steps` sets the root.
    late=("HOME", "ZENML_CUSTOM_SOURCE_ROOT"),
)
"""The imports of a step's process, which take most of its time."""
