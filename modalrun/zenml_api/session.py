"""Open a session in which runs are read from ZenML."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from modalrun.util import garbage_collection
from modalrun.zenml_api import config_files
from modalrun.zenml_api.process import zenml_process


@contextlib.contextmanager
def zenml_session() -> Iterator[None]:
    """Prepare this process to read runs from ZenML, until the context ends.

    Raises:
        ConnectionLostError: There is a ZenML server, and it doesn't answer.
    """
    with zenml_process(Path.cwd()):
        config_files.skip_migration()
        # ZenML prints to stdout while it is imported; stdout is for data.
        with garbage_collection.paused(), redirect_stdout(sys.stderr):
            from zenml.client import Client

            from modalrun.zenml_api.errors import translated

            with translated():
                # The store's own imports are half of all.
                _ = Client().zen_store
        yield
