"""A step that deletes whatever it finds in its temporary folder and its home."""

import os
import shutil
import tempfile
from pathlib import Path

from zenml import pipeline, step


@step(enable_cache=False)
def empty(whole: bool) -> int:
    # ZenML asks uv for the packages meanwhile, which makes files in the home.
    Path.home().mkdir(parents=True, exist_ok=True)
    for folder in (Path(tempfile.gettempdir()), Path.home()):
        if whole:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            for path in folder.iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    print("all is empty")
    return 1


@step(enable_cache=False)
def leave(number: int) -> None:
    print("the next step", number)
    os._exit(3)


@pipeline
def emptying(whole: bool = False) -> None:
    leave(empty(whole))
