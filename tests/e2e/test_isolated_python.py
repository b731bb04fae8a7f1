"""Runs on a local Modal server whose sandboxes have the Python of their image.

The images are made of packages from PyPI, through the cache of uv.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modalrun.localmodal import launcher

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive]

PIPELINE = """
import importlib.util
import sys

from zenml import pipeline, step


@step
def look() -> None:
    print("python:", sys.prefix)
    if importlib.util.find_spec("pytest") is not None:
        raise RuntimeError("these are the packages of the submitting Python")
    import sniffio


@pipeline(enable_cache=False)
def looking() -> None:
    look()
"""
# How this machine reaches PyPI; a test's world does not pass it on by itself.
REACH = {name: text for name, text in os.environ.items() if name.startswith(("UV_", "SSL_CERT"))}
ISOLATED = {
    "MODALRUN_LOCAL_ISOLATED_PYTHON": "1",
    "UV_CACHE_DIR": str(Path.home() / ".cache" / "uv"),
    **REACH,
}


@pytest.mark.parametrize("mode", ["pipeline", "per_step"])
def test_a_run_has_the_packages_of_its_image_alone(world: World, mode: str) -> None:
    (world.project / "isolated.py").write_text(PIPELINE)
    spec = (
        "pipeline: isolated.looking\ntarget: local\n"
        f"settings:\n  orchestrator: {{mode: {mode}}}\n  docker: {{requirements: [PACKAGES]}}\n"
    )

    done = world.submit(spec.replace("PACKAGES", "sniffio"), **ISOLATED)
    assert done.exit_code == 0, done.stderr
    assert f"python: {world.state / 'pythons'}" in done.stdout

    missing = world.submit(spec.replace("PACKAGES", ""), **ISOLATED)
    assert missing.exit_code == 1
    assert "No module named 'sniffio'" in missing.stdout + missing.stderr

    wrong = world.submit(spec.replace("PACKAGES", "sniffio==0.0.1"), **ISOLATED)
    assert wrong.exit_code == 1
    assert "Modal could not build the image" in wrong.stderr
    assert "sniffio==0.0.1" in wrong.stderr

    # The server that runs is the one that counts.
    launcher.stop(world.state)
    shared = world.submit(spec.replace("PACKAGES", ""))
    assert "the packages of the submitting Python" in shared.stdout + shared.stderr
