"""Give the child of a sandbox's supervisor its variables, and files to speak with it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from modalrun.run import contract


def create() -> dict[str, str]:
    """Create the files of a child, and return its variables; HOME stays the image's.

    The files, and a ZenML configuration of its own, are beside the source tree: a step may empty
    the temporary folder or its home.

    Raises:
        OSError: They can't be created.
    """
    own = Path(tempfile.mkdtemp(prefix=contract.OWN_FOLDER, dir=beside(Path.cwd())))
    config = own / "zenml"
    config.mkdir()
    (own / "exit-code").write_text("none", encoding="ascii")
    (own / "running-steps").write_text("[]", encoding="ascii")
    (own / "usage").touch()
    binaries = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "ZENML_CONFIG_PATH": str(config),
        "ZENML_CUSTOM_SOURCE_ROOT": str(Path.cwd()),
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)]),
        contract.STARTED: os.environ.get(contract.STARTED, str(time.time())),
        contract.END_REASON_FILE: str(own / "end-reason"),
        contract.STOP_FILE: str(own / "stop"),
        contract.EXIT_CODE_FILE: str(own / "exit-code"),
        contract.RUNNING_STEPS_FILE: str(own / "running-steps"),
        contract.USAGE_FILE: str(own / "usage"),
    }


def beside(folder: Path) -> Path | None:
    """Return the folder that holds another one; None if nothing can be created there."""
    return folder.parent if os.access(folder.parent, os.W_OK) else None
