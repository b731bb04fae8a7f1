"""Make modalrun an orchestrator of a ZenML stack, and set a project up for it.

zenml orchestrator flavor register modalrun.flavor.ModalrunOrchestratorFlavor

orchestrator         the orchestrator component of a registered stack
runs                 submit, inspect and stop its runs
init_project         `modalrun init`: register flavor and stack, write a run spec
pipeline_discovery   find the pipelines of a folder without importing them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zenml.orchestrators.base_orchestrator import BaseOrchestratorFlavor

from modalrun.zenml_api.component import FLAVOR
from modalrun.zenml_api.orchestrator_config import ModalOrchestratorConfig

if TYPE_CHECKING:
    from modalrun.flavor.orchestrator import RegisteredOrchestrator


class ModalrunOrchestratorFlavor(BaseOrchestratorFlavor):
    """The flavor `modalrun`. (`modal` is the name of ZenML's own.)"""

    @property
    def name(self) -> str:
        """The value of `--flavor`."""
        return FLAVOR

    @property
    def config_class(self) -> type[ModalOrchestratorConfig]:
        """The options of `zenml orchestrator register`."""
        return ModalOrchestratorConfig

    @property
    def implementation_class(self) -> type[RegisteredOrchestrator]:
        """The orchestrator, imported when it is first needed."""
        from modalrun.flavor.orchestrator import RegisteredOrchestrator

        return RegisteredOrchestrator
