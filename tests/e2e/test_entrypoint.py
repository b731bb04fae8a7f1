"""An image's ENTRYPOINT, which would wrap the command of a sandbox."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


def spec(world: World, entrypoint: str, **keys: Any) -> str:
    """Write a Dockerfile with an ENTRYPOINT and return a run spec that uses it."""
    (world.project / "Dockerfile").write_text(
        f"FROM python:3.11\nRUN echo hello > /opt/hello\nENTRYPOINT {entrypoint}\nCMD sleep 1\n"
    )
    docker = {"dockerfile": "Dockerfile"}
    keys = {"pipeline": "pictured.pictured", "target": "local", **keys}
    return json.dumps({**keys, "settings": {"docker": docker}})


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_an_entrypoint_is_reset(world: World, mode: str) -> None:
    """As for ZenML's other orchestrators, whose images have ZenML's own."""
    done = world.submit(spec(world, '["echo", "instead, of the command"]'), "--mode", mode)

    assert done.exit_code == 0, done.stderr
    assert "first None None" in done.stdout
    assert "instead" not in done.stdout
    assert "does not execute a line of Dockerfile: RUN echo hello > /opt/hello\n" in done.stderr


def test_an_entrypoint_that_is_asked_for_wraps_the_command(world: World) -> None:
    entrypoint = '["env", "FROM_THE_IMAGE=a, b"]'

    done = world.submit(spec(world, entrypoint, image={"keep_entrypoint": True}))

    assert done.exit_code == 0, done.stderr
    assert "first a, b None" in done.stdout
    (sandbox,) = world.sandboxes()
    assert sandbox.command[:2] == ["env", "FROM_THE_IMAGE=a, b"]


@pytest.mark.exhaustive
def test_an_entrypoint_that_runs_no_command(world: World) -> None:
    text = spec(world, '["echo", "a,b"]', image={"keep_entrypoint": True})

    done = world.submit(text)

    assert done.exit_code == 1, done.stderr
    assert re.match("a,b .* -m modalrun.driver.supervisor", done.stdout)
    assert world.only_run().status == "failed"


def test_an_entrypoint_that_ends_says_that_it_was_kept(world: World) -> None:
    done = world.submit(spec(world, '["false"]', image={"keep_entrypoint": True}))

    assert done.exit_code == 1, done.stderr
    assert "The sandbox ended (exit code 1) before modalrun began in it." in done.stderr
    assert re.search("^  next .*ENTRYPOINT of the image", done.stderr, re.M)
    run = world.only_run()
    assert "'keep_entrypoint'" in world.modalrun("status", run.id).finish().stdout
    logs = world.modalrun("logs", run.id).finish()
    assert logs.exit_code == 4
    assert "There are no lines of the run" in logs.stderr
    assert "these are the logs" not in logs.stderr


@pytest.mark.parametrize(
    ("pipeline", "keep_warm"),
    [
        ("pictured.pictured", 0),
        pytest.param("pictured.pictured", 30, marks=pytest.mark.exhaustive),
        pytest.param("pictured.isolated", 0, marks=pytest.mark.exhaustive),
        pytest.param("pictured.isolated", 30, marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(
    ("program", "code"), [("true", 0), pytest.param("false", 1, marks=pytest.mark.exhaustive)]
)
def test_a_step_is_not_done_because_an_entrypoint_has_ended_well(
    world: World, pipeline: str, keep_warm: int, program: str, code: int
) -> None:
    """The driver of a static pipeline has an image of its own; that of a dynamic one runs here."""
    # A dynamic run's own sandbox has the image too.
    runs = f'case $* in *driver.step*) exit {code};; esac; exec "$@"'
    entrypoint = json.dumps(["sh", "-c", runs, "sh"] if "isolated" in pipeline else [program])

    done = world.submit(
        spec(world, entrypoint, pipeline=pipeline, image={"keep_entrypoint": True}),
        "--mode",
        "per_step",
        "--set",
        f"settings.orchestrator.keep_warm={keep_warm}",
    )

    assert done.exit_code == 1, done.stderr
    reason = f"The sandbox ended (exit code {code}) before modalrun began in it."
    assert reason in done.stderr and "ENTRYPOINT of the image" in done.stderr
    run = world.only_run()
    assert set(run.statuses.values()) == {"failed"}
    assert reason in world.modalrun("status", run.id).finish().stdout
