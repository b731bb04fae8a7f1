"""A step whose output takes its time to be stored."""

import os
from pathlib import Path
from typing import Any

from zenml import pipeline, step
from zenml.materializers.base_materializer import BaseMaterializer


class Gated:
    """A value that is stored once a gate is open."""

    def __init__(self, gate: str) -> None:
        self.gate = gate


class GatedMaterializer(BaseMaterializer):
    """Say which process stores it, and wait for its gate."""

    ASSOCIATED_TYPES = (Gated,)

    def load(self, data_type: type[Any]) -> Gated:
        """Give any."""
        return data_type("")

    def save(self, data: Gated) -> None:
        """Wait."""
        print(f"storing in {os.getpid()}", flush=True)
        with Path(data.gate).open() as file:
            file.read()


@step(output_materializers=GatedMaterializer)
def stores(gate: str) -> Gated:
    """Return at once."""
    return Gated(gate)


@pipeline(enable_cache=False)
def storing(gate: str) -> None:
    """Store one output."""
    stores(gate)
