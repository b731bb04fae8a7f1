"""The quick start of a registered stack, where teams have it: on a ZenML server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_flavor import commands, script

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.exhaustive
def test_a_registered_stack_runs_scripts_in_both_modes(world: World) -> None:
    assert world.place is not None
    name = world.place.name
    commands(
        world,
        "zenml orchestrator flavor register modalrun.flavor.ModalrunOrchestratorFlavor",
        f"zenml orchestrator register {name}-orch --flavor=modalrun --synchronous=true"
        " --target=local --gpu=T4",
        f"zenml stack register {name}-modal -o {name}-orch -a {name} --set",
    )

    done = script(world, "flavored.py", "pipeline").finish()

    assert done.exit_code == 0, done.stdout + done.stderr
    assert "load | loaded 4\n" in done.stdout
    assert "ended as completed" in done.stdout
    run = world.only_run()
    assert (run.status, run.stack) == ("completed", f"{name}-modal")
    (box,) = world.sandboxes()
    assert box.name == f"modalrun-{run.id}"

    failed = script(world, "flavored.py", "per_step", "wrong").finish()

    assert failed.exit_code == 1
    assert world.runs()[1].statuses == {"load": "cached", "double": "failed"}
    assert "double | doubling in double\n" in failed.stdout
    assert "Run failed: double." in " ".join((failed.stdout + failed.stderr).split())
