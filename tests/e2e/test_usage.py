"""What steps use: their figures against what they know of themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from commands import DEADLINE

from modalrun.localmodal import launcher
from modalrun.run.events import EventScanner, Used
from modalrun.run.usage import StepUsage, usage_from_metadata
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import load_spec

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = """
pipeline: using.{pipeline}
target: local
parameters: {{folder: {folder}}}
settings: {{orchestrator: {{mode: {mode}, max_parallelism: {limit}{more}}}}}
"""

STORED = """
from zenml.client import Client
client = Client()
run = client.list_pipeline_runs(size=1, sort_by="desc:created").items[0]
steps = client.list_run_steps(pipeline_run_id=run.id, hydrate=True, size=50).items
result = {step.name: dict(step.run_metadata) for step in steps}
"""


def figures(world: World, pipeline: str, mode: str, limit: int, more: str = "") -> dict[str, Any]:
    """Run a pipeline; return each step's usage."""
    spec = SPEC.format(pipeline=pipeline, folder=world.elsewhere, mode=mode, limit=limit, more=more)
    # Two cores, for all tests at once: five seconds of computing take long.
    done = world.popen(spec).finish(3 * DEADLINE)
    assert done.exit_code == (1 if pipeline in {"using", "using_too_much"} else 0), done.stderr
    stored = world.zenml(STORED)
    return {name: usage_from_metadata(metadata) for name, metadata in stored.items()}


def known(world: World, name: str) -> dict[str, float]:
    """What a step has written down."""
    written: dict[str, float] = json.loads((world.elsewhere / name).read_text())
    return written


def check(world: World, name: str, usage: StepUsage | None, around: float = 0.0) -> None:
    """Compare a step's figures with what it has written down.

    Args:
        around: CPU seconds that a step's process takes besides its function, on this machine.
    """
    assert usage is not None, name
    told = known(world, name)
    if "cpu" in told:
        most = told["cpu"] + around
        # A process that is killed in its function does nothing after it.
        least = told["cpu"] if usage.killed else most
        assert 0.9 * least - 0.2 <= usage.cpu_seconds <= 1.1 * most + 0.2, (name, usage)
    assert usage.peak_memory == pytest.approx(told["memory"], rel=0.1), (name, usage)
    assert usage.killed == (name in {"dying", "taken", "held"})
    assert usage.points
    assert usage.points[-1].at == pytest.approx(usage.seconds, abs=0.6)


@pytest.mark.parametrize(
    ("mode", "limit", "more"),
    [
        ("per_step", 5, ""),
        pytest.param("pipeline", 5, "", marks=pytest.mark.exhaustive),
        pytest.param("pipeline", 1, "", marks=pytest.mark.exhaustive),
        pytest.param("per_step", 1, ", keep_warm: 20", marks=pytest.mark.exhaustive),
    ],
)
def test_the_figures_are_those_that_the_steps_know(
    world: World, mode: str, limit: int, more: str
) -> None:
    found = figures(world, "using", mode, limit, more)
    around = found["sleeping"].cpu_seconds - known(world, "sleeping")["cpu"]
    assert 0 <= around < 1
    for name in ("computing", "hoarding", "sleeping", "forking", "dying"):
        check(world, name, found[name], around)
    table = world.modalrun("advise", "using").finish()
    assert table.exit_code == 0, table.stderr
    assert "using: cores and memory, by one run" in table.stdout
    assert ("(all steps)" in table.stdout) == (mode == "pipeline")
    written = world.modalrun("advise", "using", "--write").finish()
    spec = load_spec(world.spec(f"pipeline: using.using\n{written.stdout}", "advised.yaml"))
    if mode == "pipeline":
        assert spec.layers[Origin.SPEC_PIPELINE].get("memory") is not None
    else:
        assert spec.step_layers["hoarding"][Origin.SPEC_STEP].get("memory") == "1536MiB"


@pytest.mark.exhaustive
def test_the_figures_of_a_step_whose_whole_sandbox_is_killed(world: World) -> None:
    world.server()
    fault = {"sandboxes": [{"role": "step", "end": "out-of-memory"}]}
    (world.state / "faults.json").write_text(json.dumps(fault))
    found = figures(world, "using_too_much", "per_step", 1)
    check(world, "taken", found["taken"])
    assert found["taken"] is not None
    run = world.only_run()
    peak = f"ran out of memory: peak {found['taken'].peak_memory:,} MiB."
    assert peak in " ".join(world.modalrun("status", run.id).finish().stdout.split())


@pytest.mark.exhaustive
def test_the_figures_of_a_run_that_is_killed_while_nobody_waits(world: World) -> None:
    spec = SPEC.format(
        pipeline="using_until_killed", folder=world.elsewhere, mode="pipeline", limit=1, more=""
    )
    done = world.submit(spec, "--async")
    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    (sandbox,) = world.sandboxes()

    def told() -> bool:
        log = b"".join(launcher.stored(sandbox.id, world.state))
        events = [event for event in EventScanner().feed(log) if isinstance(event, Used)]
        most = max((json.loads(one)[4] for event in events for one in event.readings), default=0)
        known = world.elsewhere / "held"
        return known.exists() and most >> 20 > 0.91 * json.loads(known.read_text())["memory"]

    world.wait_until(told, "an event with all of its memory")
    assert launcher.kill(sandbox.id, world.state)
    recorded = world.modalrun("reconcile", run.id).finish()
    assert recorded.exit_code == 0, recorded.stderr
    check(world, "held", usage_from_metadata(world.zenml(STORED)["held"]))


@pytest.mark.exhaustive
def test_the_figures_of_inline_steps(world: World) -> None:
    found = figures(world, "using_dynamic", "pipeline", 1)
    for name in ("computing", "hoarding", "sleeping"):
        check(world, name, found[name])
