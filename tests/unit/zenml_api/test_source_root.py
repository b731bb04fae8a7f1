"""Importing what reaches into ZenML changes the source root of sandboxes alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import sys, types
held = types.ModuleType("zenml.utils.source_utils")
held.root = "set by ZenML's command line"
held.set_custom_source_root = lambda root: setattr(held, "root", root)
sys.modules[held.__name__] = held
import modalrun.zenml_api
print(held.root)
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
