"""Open a session in which runs are read from ZenML."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from modalrun.zenml_api import config_files
from modalrun.zenml_api.process import zenml_process


@contextlib.contextmanager
def zenml_session() -> Iterator[None]:
    """Prepare this process to read runs from ZenML, until the context ends.

    Raises:
        ConnectionLostError: There is a ZenML server, and it doesn't answer.
    """
    # Imports allocate much and free nothing: collecting meanwhile costs a fifth of the time.
    gc.disable()
    try:
        with zenml_process(Path.cwd()):
            config_files.skip_migration()
            # ZenML prints to stdout while it is imported; stdout is for data.
            with redirect_stdout(sys.stderr):
                from zenml.client import Client

                from modalrun.zenml_api.errors import translated

                with translated():
                    # The store's own imports are half of all.
                    _ = Client().zen_store
            gc.freeze()
            gc.enable()
            yield
    finally:
        gc.enable()
