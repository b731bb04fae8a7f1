"""Commands that only look at a pipeline store nothing of it in ZenML."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

PIPELINE = """\
from zenml import ExternalArtifact, pipeline, step


@step
def show(value: dict) -> None:
    print(f"GOT {value}")


@pipeline
def given() -> None:
    show(ExternalArtifact(value={"one": 1}))
"""


@pytest.mark.local_store("other tests store artifacts on the shared server")
def test_external_artifacts_are_stored_by_a_submission_alone(world: World) -> None:
    (world.project / "external.py").write_text(PIPELINE)
    spec = world.spec("pipeline: external.given\ntarget: local\n")

    def stored() -> int:
        found: int = world.zenml(
            "from zenml.client import Client\n"
            "result = Client().list_artifact_versions(size=1).total\n"
        )
        return found

    for command in ("plan", "doctor"):
        done = world.modalrun(command, str(spec)).finish()
        assert done.exit_code == 0, done.stdout + done.stderr
    assert stored() == 0

    done = world.submit(spec)
    assert done.exit_code == 0, done.stderr
    assert "GOT {'one': 1}" in done.stdout
    assert stored() == 1

    command = [sys.executable, "-m", "modalrun", "rerun", "latest", "--plan", "--new-code"]
    same = world.start(command, cwd=world.project).finish()
    assert (same.exit_code, "Every step of the run" in same.stderr) == (2, True), same.stderr
    (world.project / "external.py").write_text(PIPELINE.replace(": 1}", ": 2}"))
    other = world.start(command, cwd=world.project).finish()
    assert "show (its inputs have changed)" in other.stdout, other.stderr
    assert stored() == 1
