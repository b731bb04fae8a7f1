"""Define the modules that the local Modal server imports before a sandbox of modalrun starts."""

from __future__ import annotations

from modalrun.localmodal.preload import Preload
from modalrun.run.zenml_modules import ZENML_MODULES

_PROGRAMS = ("supervisor", "step", "step_worker", "per_step", "pipeline", "dynamic", "finalize")

PRELOAD = Preload(
    # None of the user's: they may change meanwhile.
    modules=(
        *ZENML_MODULES,
        # The driver's SDK.
        "modal",
        *(f"modalrun.driver.{name}" for name in _PROGRAMS),
        # They import these when they begin.
        "modalrun.zenml_api.execution.single_step",
        "modalrun.zenml_api.records.updates",
        "modalrun.zenml_api.records.zenml_store",
        "modalrun.modal_api.sandboxes.step_sandboxes",
        "modalrun.zenml_api.orchestrator_config:ModalOrchestratorConfig.model_rebuild",
    ),
    programs=("modalrun.driver",),
    # The planner sets it in every sandbox.
    env={"PYTHONUNBUFFERED": "1"},
    # Python looks for a user's own packages in HOME, and `zenml_api.execution.steps` sets the root.
    late=("HOME", "ZENML_CUSTOM_SOURCE_ROOT"),
)
"""The imports of a step's process, which take most of its time."""
