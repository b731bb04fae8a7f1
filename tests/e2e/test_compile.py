"""The command that `modalrun compile` prints runs the pipeline as the run spec would have."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("place", ["", "../elsewhere"], ids=["below", "beside"])
def test_the_printed_command_keeps_target_options_and_source_root(world: World, place: str) -> None:
    folder = (world.project / place).resolve()
    folder.mkdir(exist_ok=True)
    spec = world.spec("pipeline: sandboxes.plain\n")
    file = folder / "deployment.json"
    options = ("--target", "local", "--timeout", "99", "--name", "as-compiled", "--async")
    done = world.modalrun("compile", str(spec), "-o", str(file), *options).finish()
    assert done.exit_code == 0, done.stderr
    printed = done.stderr.partition("To run it: modalrun ")[2].replace("\n", " ")
    assert ("--source-root" in printed) is bool(place), done.stderr

    done = world.modalrun(*shlex.split(printed)).finish()

    assert done.exit_code == 0, done.stderr
    run = world.only_run()
    assert (run.name, done.stdout.strip()) == ("as-compiled", run.id)
    assert [sandbox.timeout_secs for sandbox in world.sandboxes()] == [99]


def test_a_stack_that_does_not_work_with_the_target_is_told(world: World) -> None:
    spec = world.spec("pipeline: sandboxes.plain\n")
    file = world.project / "d.json"
    done = world.modalrun("compile", str(spec), "-o", str(file), "--target", "modal").finish()
    assert done.exit_code == 0, done.stderr
    assert "can't be used with target 'modal'" in done.stderr
    assert done.stderr.endswith(f"To run it: modalrun submit {file} --target local\n"), done.stderr
