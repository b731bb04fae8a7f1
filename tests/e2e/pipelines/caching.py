"""A step that keeps a file below its home."""

import os
from pathlib import Path

from zenml import pipeline, step


@step(enable_cache=False)
def keep() -> None:
    """Say what an earlier run has kept, and keep something."""
    cache = Path.home() / ".cache"
    print("found", sorted(path.name for path in cache.glob("*.bin")), "below", os.environ["HOME"])
    (cache / "model.bin").write_text("weights")


@pipeline
def caching() -> None:
    """Keep a file."""
    keep()
