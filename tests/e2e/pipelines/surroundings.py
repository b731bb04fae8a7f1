"""A step that tells where it is, and what it finds there."""

import json
import os
from pathlib import Path

from zenml import pipeline, step


@step
def look(meet: str, mode: str) -> None:
    """Meet another run if asked to, then tell what is around."""
    if meet:
        # Opening a named pipe waits for the other side: the two steps run at the same time.
        with Path(meet).open(mode):
            print("met the other run")
    here = Path.cwd()
    surroundings = {
        "home": os.environ["HOME"],
        "config": os.environ["ZENML_CONFIG_PATH"],
        "cwd": str(here),
        "module": __file__,
        "files": sorted(str(p.relative_to(here)) for p in here.rglob("*") if p.is_file()),
    }
    print("SURROUNDINGS", json.dumps(surroundings))


@pipeline(enable_cache=False)
def surroundings(meet: str = "", mode: str = "") -> None:
    """Look around."""
    look(meet, mode)
