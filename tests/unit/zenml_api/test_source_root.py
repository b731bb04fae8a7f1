"""Import zenml_api: only in sandboxes it changes ZenML's source root."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import sys, types
module = types.ModuleType("zenml.utils.source_utils")
module.root = "set by ZenML's command line"
module.set_custom_source_root = lambda root: setattr(module, "root", root)
sys.modules[module.__name__] = module
import modalrun.zenml_api
print(module.root)
"""


@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({}, "set by ZenML's command line"),
        ({"ZENML_CUSTOM_SOURCE_ROOT": "/app/code"}, "/app/code"),
    ],
)
def test_the_source_root_of_a_process(variables: dict[str, str], root: str) -> None:
    kept = {k: v for k, v in os.environ.items() if k != "ZENML_CUSTOM_SOURCE_ROOT"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == root
