"""The flavor that makes modalrun an orchestrator of a ZenML stack.

zenml orchestrator flavor register modalrun.flavor.ModalrunOrchestratorFlavor
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zenml.orchestrators.base_orchestrator import BaseOrchestratorFlavor

from modalrun.zenml_api.orchestrator_config import FLAVOR, ModalOrchestratorConfig

if TYPE_CHECKING:
    from modalrun.flavor.orchestrator import RegisteredOrchestrator


class ModalrunOrchestratorFlavor(BaseOrchestratorFlavor):
    """The flavor `modalrun`. (`modal` is the name of ZenML's own.)"""

    @property
    def name(self) -> str:
        """The name that `--flavor` takes."""
        return FLAVOR

    @property
    def config_class(self) -> type[ModalOrchestratorConfig]:
        """What `zenml orchestrator register` takes."""
        return ModalOrchestratorConfig

    @property
    def implementation_class(self) -> type[RegisteredOrchestrator]:
        """The orchestrator; imported when it is first needed."""
        from modalrun.flavor.orchestrator import RegisteredOrchestrator

        return RegisteredOrchestrator
