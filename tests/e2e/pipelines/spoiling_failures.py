"""Steps that spoil what their process reports a failure with, and then fail."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable

from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig


def _deletes_its_folder() -> None:
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    shutil.rmtree(folder)


def _replaces_streams() -> None:
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


SPOILERS: dict[str, Callable[[], object]] = {
    "deletes_its_folder": _deletes_its_folder,
    "closes_descriptors": lambda: (os.close(1), os.close(2)),
    "closes_streams": lambda: (sys.stdout.close(), sys.stderr.close()),
    "replaces_streams": _replaces_streams,
}


@step
def spoil(way: str, fails: bool = True) -> int:
    """Spoil the process, and perhaps fail."""
    SPOILERS[way]()
    if fails:
        raise KeyError(f"bad luck of {way}")
    return 1


@pipeline(enable_cache=False)
def static() -> None:
    """All of them, one after the other."""
    for way in SPOILERS:
        spoil(way, id=way)


@pipeline(enable_cache=False, dynamic=True)
def dynamic() -> None:
    """All of them twice, of which the first fail."""
    retry = StepRetryConfig(max_retries=1, delay=0, backoff=1)
    for way in SPOILERS:
        try:
            spoil.with_options(retry=retry)(way, id=way)
        except KeyError as error:
            print(f"the function got {error}")
        spoil(way, fails=False, id=f"{way}_well")
        print(f"the function goes on after {way}")
    with contextlib.redirect_stdout(io.StringIO()):
        spoil("deletes_its_folder", fails=False, id="redirected")
