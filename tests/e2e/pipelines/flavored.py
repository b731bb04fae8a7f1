"""A script that runs its pipeline on the active stack, as ZenML's users do."""

import os
import sys
from pathlib import Path

from zenml import pipeline, step

from modalrun.settings import ModalOrchestratorSettings


@step
def load() -> int:
    """Print something."""
    print("loaded 4")
    return 4


@step
def double(number: int, gate: str | None = None, wrong: bool = False) -> int:
    """Wait at a gate, and fail, if asked to."""
    print(f"doubling in {os.environ.get('MODALRUN_STEP', 'the run sandbox')}", flush=True)
    if gate:
        with Path(gate).open() as file:
            file.read()
    if wrong:
        raise ValueError("as asked")
    return 2 * number


@pipeline(settings={"orchestrator": ModalOrchestratorSettings(timeout=300)})
def flavored(gate: str | None = None, wrong: bool = False) -> None:
    """Double a number."""
    double(load(), gate, wrong)


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    chosen = {"mode": mode, "synchronous": "async" not in arguments}
    run = flavored.with_options(settings={"orchestrator": chosen})(
        gate=next((word for word in arguments if "/" in word), None), wrong="wrong" in arguments
    )
    print("ended as", run.status.value)
