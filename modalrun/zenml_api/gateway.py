"""Describe the functions on ZenML that submit and control call, so that tests can pass a fake.

Importing this module does not import ZenML; `zenml_gateway` does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.model import Plan

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled


class ZenMLGateway(Protocol):
    """The functions of `modalrun.zenml_api.surface`; their docstrings are there."""

    def resolve_images(
        self, plan: Plan, compiled: Compiled
    ) -> tuple[Plan, RegistryCredentials | None]:
        """Fill in what the plan's images need of the stack's container registry."""

    def publish_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> None:
        """Store metadata with the run."""

    def stop_requested(self, run_id: str) -> bool:
        """Return whether the run is stopping or stopped."""

    def record_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> bool:
        """Store where the run sandbox is; return whether the run was stopped meanwhile."""

    def mark_stopping(self, run_id: str, reason: str) -> bool:
        """Record that the run is to stop; return whether it was unfinished."""

    def finalize_run(self, run_id: str, reason: str, *, stopped: bool = False) -> bool:
        """Record the end of the run and of its unfinished steps; return whether any was open."""


def zenml_gateway() -> ZenMLGateway:
    """Import ZenML and return the real gateway."""
    # ZenML prints to stdout while it is imported; stdout is for data.
    with redirect_stdout(sys.stderr):
        from modalrun.zenml_api import surface
    return surface
