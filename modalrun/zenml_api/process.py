"""Prepare a process for ZenML before ZenML is imported."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.util import compatibility
from modalrun.zenml_api import config_files

if TYPE_CHECKING:
    pass


@contextlib.contextmanager
def zenml_process(source_root: Path) -> Iterator[None]:
    """Where ZenML is used: on a copy of its configuration where it would change the user's.

    Raises:
        ConnectionLostError: There is a ZenML server, and it doesn't answer.
        UsageError: modalrun doesn't work with the version of ZenML or modal that is installed.
    """
    compatibility.require()
    copy = config_files.protect()
    try:
        prepare_process(source_root)
        yield
    finally:
        if copy is not None:
            shutil.rmtree(copy, ignore_errors=True)


def prepare_process(source_root: Path) -> None:
    """Set what ZenML reads from the environment when it is imported. For this process only.

    Raises:
        ConnectionLostError: There is a ZenML server, and it doesn't answer.
    """
    config_files.require_server()
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "WARN")
    os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")
    if (source_root / ".zen").is_dir():
        # The project and stack that are active in the pipeline's repository, wherever we stand.
        os.environ.setdefault("ZENML_REPOSITORY_PATH", str(source_root))
