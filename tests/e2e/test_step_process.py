"""The process of a step sandbox, with ZenML beneath and no driver above."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command, Run, World

pytestmark = pytest.mark.e2e

CREATE = """
from pathlib import Path
from modalrun import preparation
from modalrun.spec import load_spec

spec = load_spec(Path({path!r}))
with preparation.zenml_process(spec.source_root):
    compiled = preparation.load(spec)
    from modalrun.zenml_api import runs
    run = runs.create_run(compiled)
result = {{"id": run.id, "environment": dict(run.environment)}}
"""

METADATA = """
from zenml.client import Client
client = Client()
steps = client.list_run_steps(pipeline_run_id={run_id!r}, hydrate=True).items
result = {{
    step.name: {{
        "metadata": dict(step.run_metadata),
        "logs": [
            Path(logs.uri).read_text() for logs in step.log_collection if logs.source == "step"
        ],
    }}
    for step in steps
}}
"""


class StepSandboxes:
    """Starts steps of one run, each as its sandbox would."""

    def __init__(self, world: World, spec: Path) -> None:
        self._world = world
        made = world.zenml(CREATE.format(path=str(spec)))
        self.run_id: str = made["id"]
        self._environment: dict[str, str] = made["environment"]

    @property
    def run(self) -> Run:
        """The run as ZenML has it."""
        (found,) = [run for run in self._world.runs() if run.id == self.run_id]
        return found

    def start(self, step: str, timeout: int = 100, **environment: str) -> Command:
        """Start the step's process below its supervisor."""
        return self._world.start(
            [sys.executable, "-m", "modalrun.driver.supervisor", "modalrun.driver.step"],
            cwd=self._world.project,
            MODALRUN_RUN_ID=self.run_id,
            MODALRUN_STEP=step,
            MODALRUN_TIMEOUT=str(timeout),
            **self._environment,
            **environment,
        )

    def record(self, step: str) -> Any:
        """The last record of a step: its id, status and version."""
        return self._world.zenml(
            "from modalrun.zenml_api.step_records import step_state\nfrom dataclasses import asdict"
            f"\nresult = asdict(step_state({self.run_id!r}, {step!r}))"
        )


@pytest.fixture
def spec(world: World, tmp_path: Path) -> Path:
    return world.spec(
        f"""
pipeline: loose.loose
target: local
execution_mode: continue_on_failure
parameters:
  gate: {world.gate()}
  diary: {tmp_path / "diary"}
init_hook_source: loose.on_init
init_hook_kwargs: {{diary: {tmp_path / "diary"}}}
"""
    )


def test_how_steps_end(world: World, spec: Path, tmp_path: Path) -> None:
    sandboxes = StepSandboxes(world, spec)
    facts = {"sandbox_id": "sb-1", "gpu": "T4", "cpu": 0.5}

    good = sandboxes.start("good", MODALRUN_STEP_FACTS=json.dumps(facts)).finish()

    assert good.exit_code == 0, good.stderr
    assert "good says this\n" in good.stdout
    diary = (tmp_path / "diary").read_text().splitlines()
    assert diary == ["init", "good runs", "hook: good succeeded"]
    first = sandboxes.start("bad").finish()
    assert first.exit_code == 1, first.stderr
    assert sandboxes.run.statuses["bad"] == "retrying"
    second = sandboxes.start("bad").finish()
    assert second.exit_code == 1
    assert "ValueError: bad luck" in second.stderr
    quitter = sandboxes.start("quitter").finish()
    assert quitter.exit_code == 1
    run = sandboxes.run
    assert run.statuses == {"good": "completed", "bad": "failed", "quitter": "failed"}
    assert [step.version for step in run.steps if step.name == "bad"] == [1, 2]


def test_a_step_whose_sandbox_is_lost_is_executed_again_for_the_same_record(
    world: World, spec: Path, tmp_path: Path
) -> None:
    sandboxes = StepSandboxes(world, spec)

    lost = sandboxes.start("patient")
    os.kill(process_of(lost), signal.SIGKILL)
    assert lost.finish().exit_code == 137
    record = sandboxes.record("patient")
    assert (record["status"], record["attempt"]) == ("running", 1)

    again = sandboxes.start("patient", MODALRUN_STEP_RUN=record["id"])
    os.kill(process_of(again), signal.SIGTERM)
    told = again.finish()
    assert told.exit_code == 143
    assert sandboxes.run.statuses == {"patient": "running"}
    assert (tmp_path / "diary").read_text() == "init\ninit\npatient cleans up\n"

    last = sandboxes.start("patient", MODALRUN_STEP_RUN=record["id"])
    process_of(last)
    (tmp_path / "gate").open("wb").close()
    done = last.finish()
    assert done.exit_code == 0, done.stderr
    (step,) = sandboxes.run.steps
    assert (step.status, step.version) == ("completed", 1)


def process_of(command: Command) -> int:
    found = re.search(r"waiting in (\d+)", command.stdout.wait_for("waiting in"))
    assert found
    return int(found[1])
