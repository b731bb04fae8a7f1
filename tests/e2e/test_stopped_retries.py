"""A step that is stopped while it waits for its retry has stopped, in every kind of run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

EVERY = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("pipeline", "mode"),
    [
        ("isolated", "per_step"),
        pytest.param("static", "pipeline", marks=EVERY),
        pytest.param("static", "per_step", marks=EVERY),
        pytest.param("submitted", "pipeline", marks=EVERY),
        pytest.param("dynamic", "pipeline", marks=EVERY),
    ],
)
@pytest.mark.parametrize("force", [(), pytest.param(("--force",), marks=EVERY)])
def test_a_step_that_waits_for_its_retry_is_stopped(
    world: World, pipeline: str, mode: str, force: tuple[str, ...]
) -> None:
    submitting = world.popen(f"pipeline: retrying.{pipeline}\ntarget: local\n", "--mode", mode)
    world.wait_until(
        lambda: world.runs() and world.only_run().statuses.get("fails") == "retrying", "it waits"
    )

    stopped = world.modalrun("stop", world.only_run().id, *force).finish()

    assert stopped.exit_code == 0, stopped.stderr
    done = submitting.finish()
    assert done.exit_code == 7
    assert re.search(r"^fails +stopped", done.stderr, re.M), done.stderr
    run = world.only_run()
    assert run.status == "stopped"
    assert [step.status for step in run.steps] in (["stopped"], ["retried", "stopped"])
