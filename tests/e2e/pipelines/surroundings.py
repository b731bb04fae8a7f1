"""A step that tells where it is, and what it finds there."""

import json
import os
import tempfile
from pathlib import Path

from zenml import pipeline, step


@step
def look(meet: str, mode: str) -> None:
    """Meet another run if asked to, then tell what is around."""
    here = Path.cwd()
    folders = [here, Path.home(), Path(tempfile.gettempdir())]
    if meet:
        for folder in folders:
            (folder / f"of-{mode}").touch()
        # Opening a named pipe waits for the other side: the two steps run at the same time.
        with Path(meet).open(mode):
            print("met the other run")
    surroundings = {
        "home": os.environ["HOME"],
        "config": os.environ["ZENML_CONFIG_PATH"],
        "cwd": str(here),
        "met": [sorted(p.name for p in folder.glob("of-*")) for folder in folders],
        "module": __file__,
        "files": sorted(str(p.relative_to(here)) for p in here.rglob("*") if p.is_file()),
    }
    print("SURROUNDINGS", json.dumps(surroundings))


@pipeline(enable_cache=False)
def surroundings(meet: str = "", mode: str = "") -> None:
    """Look around."""
    look(meet, mode)
