"""Somebody has changed the metadata of runs: only their own sandboxes are looked at and ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from modalrun.run.failure import read_failure
from modalrun.run.metadata import PREFIX
from tests.e2e.test_endings import waiting_spec
from tests.security.growth import assert_linear
from tests.security.test_fuzz_metadata import KEYS

if TYPE_CHECKING:
    from tests.world import Result, World

CHANGE = """
from uuid import UUID
from zenml.client import Client
from zenml.orchestrators.publish_utils import publish_pipeline_run_metadata
component = Client().active_stack.orchestrator.id
publish_pipeline_run_metadata(UUID({run!r}), {{component: {values!r}}})
result = None
"""


def change(world: World, run: str, **values: Any) -> None:
    """Change metadata of a run as anybody with access to the ZenML project can."""
    named = {f"{PREFIX}{name}": value for name, value in values.items()}
    world.zenml(CHANGE.format(run=run, values=named))


def modalrun(world: World, *arguments: str) -> Result:
    return world.modalrun(*arguments).finish()


@pytest.mark.e2e
def test_a_sandbox_of_another_run_is_neither_shown_nor_stopped(world: World) -> None:
    gate = world.gate()
    assert world.submit(waiting_spec(gate), "--async").exit_code == 0
    victim = world.only_run()
    world.wait_until(lambda: world.only_run().statuses, "the step runs")
    (own,) = world.sandboxes()
    other_gate = world.gate("other")
    assert world.submit(waiting_spec(other_gate), "--async").exit_code == 0
    attacker = world.runs()[1]
    world.wait_until(lambda: world.runs()[1].statuses, "the other step runs")
    change(world, attacker.id, sandbox_id=own.id, earlier=own.id)

    status = modalrun(world, "status", attacker.id)
    assert status.exit_code == 0, status.stderr
    shown = " ".join(status.stdout.split())
    assert f"The sandbox {own.id} does not belong to the run {attacker.id}" in shown
    # By its name: the record is read for the run's sandbox.
    logs = modalrun(world, "logs", attacker.name)
    assert "waiting in" not in logs.stdout and "does not belong" in logs.stdout + logs.stderr
    names = {key.removeprefix(PREFIX) for key in KEYS} - {"sandbox_id", "earlier"}
    change(world, attacker.id, **{name: {"a": [1]} for name in names})
    listed = modalrun(world, "list")
    assert listed.exit_code == 0 and victim.id[:8] in listed.stdout, listed.stderr
    status = modalrun(world, "status", attacker.id)
    assert status.exit_code == 0 and "taken as unknown" in " ".join(status.stdout.split())

    # Its own sandboxes are found by its deployment and their tags.
    known = {"target": "local", "mode": "pipeline", "app": "zenml-pipeline-waiting"}
    change(world, attacker.id, **known, app_id=own.app_id, stop_requested=False)
    stopped = modalrun(world, "stop", attacker.id, "--force")
    assert stopped.exit_code == 0, stopped.stderr
    first, second = world.sandboxes()
    assert second.finished_at and not first.finished_at
    gate.open()
    world.wait_until(lambda: world.runs()[0].status == "completed", "the other run completes")


def reason(**info: Any) -> str | None:
    found = read_failure(**{"trace": "", "source": None, "message": None, **info})
    return str(found) if found else None


@pytest.mark.parametrize("message", ["", " ", "\n\n", "\x0b", None])
def test_an_exception_without_a_text_has_a_class(message: str | None) -> None:
    assert reason(source="builtins.ValueError", message=message) == "ValueError"


@pytest.mark.parametrize("trace", ["", "\n", " \x0b "])
def test_an_exception_without_anything_has_no_reason(trace: str) -> None:
    assert reason(trace=trace) is None


def test_a_reason_is_one_clean_line() -> None:
    found = reason(source="my\x1b[2Jmodule.My\nError", message="a\x07b\x1b]0;c\n::error::")
    assert found is not None and found.isprintable() and found.startswith("My Error: a b")


def test_a_long_traceback_takes_linear_time() -> None:
    def text(size: int) -> str:
        return ' File "' + "/app/code/" * size + '", line'

    assert_linear(lambda trace: reason(source="a.B", trace=trace), text, 20_000)
    assert_linear(
        lambda trace: reason(source="a.B", trace=trace),
        lambda size: f"{text(90)}\n" * size,
        200,
    )


def test_the_place_in_the_project_is_found() -> None:
    trace = '  File "/app/code/steps/train.py", line 12, in train\n    x\nValueError: y\n'
    found = reason(source="builtins.ValueError", message="y", trace=trace)
    assert found == "ValueError: y (steps/train.py:12)"


NEST = """
import json, sqlite3
from zenml.client import Client
from zenml.enums import MetadataResourceTypes
from zenml.models import RunMetadataResource
value = []
for _ in range(100):
    value = [value]
resource = RunMetadataResource(id={run!r}, type=MetadataResourceTypes.PIPELINE_RUN)
Client().create_run_metadata(metadata={{"x": value}}, resources=[resource])
database = sqlite3.connect(Client().zen_store.config.database)
with database:
    database.execute("UPDATE run_metadata SET value = ? WHERE key = 'x'", ({stored!r},))
result = None
"""


@pytest.mark.e2e
@pytest.mark.parametrize(
    "stored",
    [
        "[" * 980 + "]" * 980,
        pytest.param("[" * 20_000 + "]" * 20_000, marks=pytest.mark.exhaustive),
        pytest.param("null", marks=pytest.mark.exhaustive),
        pytest.param("{", marks=pytest.mark.exhaustive),
    ],
    ids=["nested", "deep", "null", "no JSON"],
)
def test_metadata_that_zenml_cannot_decode(world: World, stored: str) -> None:
    gate, other_gate = world.gate(), world.gate("other")
    assert world.submit(waiting_spec(other_gate), "--async").exit_code == 0
    other = world.only_run()
    assert world.submit(waiting_spec(gate), "--async").exit_code == 0
    run = world.runs()[1]
    world.wait_until(lambda: world.runs()[1].statuses, "the step runs")
    world.zenml(NEST.format(run=run.id, stored=stored))

    listed = modalrun(world, "list")
    assert listed.exit_code == 0, listed.stderr
    assert other.id[:8] in listed.stdout and run.id[:8] in listed.stdout
    expected = {"status": 0, "logs": 0, "resume": 2, "reconcile": 2, "stop": 4}
    for command, exit_code in expected.items():
        done = modalrun(world, command, run.id)
        assert done.exit_code == exit_code, done.stderr
        assert command in {"logs", "reconcile"} or "unknown: all." in done.stdout + done.stderr
    assert modalrun(world, "reconcile", "--force", run.id).exit_code == 0
    assert world.runs()[1].status == "failed"
    gate.open()
    other_gate.open()
    world.wait_until(lambda: world.runs()[0].status == "completed", "the other run completes")
