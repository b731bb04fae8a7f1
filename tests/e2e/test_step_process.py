"""The process of a step sandbox, with ZenML beneath and no driver above."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import Command, Run, World

pytestmark = pytest.mark.e2e

CREATE = """
from pathlib import Path
from modalrun.submit import prepare
from modalrun.zenml_api import process
from modalrun.spec.run_spec import load_spec

spec = load_spec(Path({path!r}))
with process.zenml_process(spec.source_root):
    compiled = prepare.load_deployment(spec)
    from modalrun.run.records import Placeholder
    from modalrun.zenml_api.records import runs
    run = runs.create_run(compiled, Placeholder())
result = {{"id": run.id, "environment": dict(run.environment)}}
"""

STORED = """
from zenml.client import Client
client = Client()
read = client.active_stack.artifact_store.open
steps = client.list_run_steps(pipeline_run_id={run_id!r}, hydrate=True).items
result = {{
    step.name: {{
        "metadata": dict(step.run_metadata),
        "logs": [
            read(logs.uri, "r").read() for logs in step.log_collection if logs.source == "step"
        ],
    }}
    for step in steps
}}
"""


RECORDER = """
import os
from pathlib import Path
from modalrun.submit import prepare
from modalrun.zenml_api import process
from modalrun.run.contract import ORCHESTRATOR_RUN_ID
from modalrun.run.records import Placeholder
from modalrun.spec.run_spec import load_spec
from modalrun.zenml_api.records import runs
from modalrun.zenml_api.execution.recorder import RunRecorder
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
            **self.variables(step, timeout),
            **environment,
        )

    def variables(self, step: str, timeout: int = 100) -> dict[str, str]:
        """The variables of a step's sandbox."""
        ours = {
            "MODALRUN_RUN_ID": self.run_id,
            "MODALRUN_STEP": step,
            "MODALRUN_TIMEOUT": str(timeout),
            "MODALRUN_CREATED": str(time.time()),
        }
        return {**self._environment, **ours}

    def record(self, step: str) -> str:
        """The id of the one record of a step."""
        records = self._world.records
        ((found,),) = records.rows(
            f"SELECT id FROM step_run WHERE name = '{step}' AND {records.mine('step_run')}"
        )
        return str(UUID(found))


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


@pytest.mark.local_store("it reads a log file, which an S3 store has in parts")
@pytest.mark.exhaustive
def test_how_steps_end(world: World, spec: Path, tmp_path: Path) -> None:
    sandboxes = StepSandboxes(world, spec)
    facts = {"sandbox_id": "sb-1", "gpu": "T4", "cpu": 0.5}
    reason = tmp_path / "reason"
    reason.write_text("It took too long.")

    good = sandboxes.start("good", MODALRUN_STEP_METADATA=json.dumps(facts)).finish()

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
    late = world.start(
        # Not forked: in the forge ZenML was imported without a standard output to capture.
        ["env", sys.executable, "-m", "modalrun.driver.step"],
        cwd=world.project,
        # As the supervisor has it.
        MODALRUN_STARTED=str(time.time()),
        MODALRUN_END_REASON_FILE=str(reason),
        ZENML_CUSTOM_SOURCE_ROOT=str(world.project),
        **sandboxes.variables("patient"),
    )
    os.kill(process_of(late), signal.SIGTERM)
    # The supervisor makes 124 of it.
    assert late.finish().exit_code == 143
    run = sandboxes.run
    assert run.statuses == {
        "good": "completed",
        "bad": "failed",
        "patient": "failed",
    }
    assert [step.version for step in run.steps if step.name == "bad"] == [1, 2]
    why = {step.name: step.exception for step in run.steps}
    assert "It took too long." in why["patient"]
    stored = world.zenml(STORED.format(run_id=sandboxes.run_id))
    metadata = stored["good"]["metadata"]
    known = metadata["modalrun_sandbox"]
    # The step's process adds what it knows itself.
    assert known.pop("started") <= known.pop("begun")
    assert known == facts
    assert "good says this" in "\n".join(stored["good"]["logs"])
    assert "waiting in" in "\n".join(stored["patient"]["logs"])


@pytest.mark.exhaustive
def test_a_step_whose_sandbox_is_lost_is_executed_again_for_the_same_record(
    world: World, spec: Path, tmp_path: Path
) -> None:
    sandboxes = StepSandboxes(world, spec)

    lost = sandboxes.start("patient")
    process = process_of(lost)
    lost.signal(signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    lost.finish()
    record = sandboxes.record("patient")
    assert [(step.status, step.version) for step in sandboxes.run.steps] == [("running", 1)]

    again = sandboxes.start("patient", MODALRUN_STEP_RUN=record)
    process_of(again)
    again.signal(signal.SIGTERM)
    told = again.finish()
    assert told.exit_code == 143
    assert sandboxes.run.statuses == {"patient": "running"}
    assert (tmp_path / "diary").read_text() == "init\ninit\npatient cleans up\n"

    last = sandboxes.start("patient", MODALRUN_STEP_RUN=record)
    process_of(last)
    (tmp_path / "gate").open("wb").close()
    done = last.finish()
    assert done.exit_code == 0, done.stderr
    (step,) = sandboxes.run.steps
    assert (step.status, step.version) == ("completed", 1)


@pytest.mark.exhaustive
def test_what_the_driver_reads_and_records(world: World, spec: Path) -> None:
    sandboxes = StepSandboxes(world, spec)
    assert sandboxes.start("good").finish().exit_code == 0

    # All in one process, since starting ZenML is what takes long.
    found = world.zenml(
        RECORDER
        + f"""
def create(prevent):
    os.environ["ZENML_PREVENT_CLIENT_SIDE_CACHING"] = str(prevent)
    run = runs.create_run(compiled, Placeholder())
    os.environ[ORCHESTRATOR_RUN_ID] = run.environment[ORCHESTRATOR_RUN_ID]
    return run, RunRecorder(run.id)

result = {{}}
with process.zenml_process(Path()):
    compiled = prepare.load_deployment(load_spec(Path({str(spec)!r})))
    run, recorder = create(False)
    result["at submission"] = sorted(run.done)
    result["stop requested"] = recorder.stop_requested()
    recorder.set_running()
    failed = [
        recorder.fail_step("bad", "Its sandbox is gone."),
        recorder.fail_step("bad", "All of them are.", final=True),
        recorder.fail_step("patient", "Modal refuses its sandbox."),
        recorder.fail_step("good", "This comes too late."),
    ]
    result["failed"] = [[state.status, state.attempt] for state in failed]

    run, recorder = create(True)
    recorder.set_running()
    result["prevented"] = sorted(run.done)
    result["cached"] = [recorder.cached(step) for step in ("patient", "good", "good")]
    result["done"] = sorted(n for n, s in recorder.states().items() if s.successful)
    recorder.fail_step("bad", "It is to be tried again.")
    recorder.finalize("Enough.", stopped=True)
"""
    )

    assert found == {
        "at submission": ["good"],
        "stop requested": False,
        "failed": [["retrying", 1], ["failed", 2], ["failed", 1], ["cached", 1]],
        "prevented": [],
        "cached": [False, True, True],
        "done": ["good"],
    }
    _, failed, stopped = world.runs()
    assert failed.status == "failed"
    assert failed.statuses == {"good": "cached", "bad": "failed", "patient": "failed"}
    first, _ = (step for step in failed.steps if step.name == "bad")
    assert "is gone" in first.exception
    assert (stopped.status, stopped.reason) == ("stopped", "Enough.")
    assert stopped.statuses == {"good": "cached", "bad": "stopped"}


@pytest.mark.exhaustive
def test_a_termination_of_a_run_that_is_stopping_stops_the_step(world: World, spec: Path) -> None:
    sandboxes = StepSandboxes(world, spec)
    patient = sandboxes.start("patient")
    process_of(patient)
    world.zenml(
        f"""
from uuid import UUID
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunUpdate
update = PipelineRunUpdate(status=ExecutionStatus.STOPPING)
Client().zen_store.update_run(UUID({sandboxes.run_id!r}), update)
result = None
"""
    )
    patient.signal(signal.SIGTERM)

    assert patient.finish().exit_code == 143
    assert sandboxes.run.statuses == {"patient": "stopped"}
    assert sandboxes.run.status == "stopped"


def process_of(command: Command) -> int:
    found = re.search(r"waiting in (\d+)", command.stdout.wait_for("waiting in"))
    assert found
    return int(found[1])
