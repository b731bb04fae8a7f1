"""Importing zenml_api leaves ZenML's source root as ZenML's command line has set it."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import sys, types
module = types.ModuleType("zenml.utils.source_utils")
module.root = "set by ZenML's command line"
module.set_custom_source_root = lambda root: setattr(module, "root", root)
sys.modules[module.__name__] = module
import modalrun.zenml_api
print(module.root)
"""


def test_the_source_root_of_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "ZENML_CUSTOM_SOURCE_ROOT": "/app/code"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "set by ZenML's command line"
