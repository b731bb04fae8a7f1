"""A hook of a pipeline that ends its process is named, with its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

EVERY = pytest.mark.exhaustive
ENDS = {"exits": "SystemExit: 3", "leaves": "ended with exit code 5"}
KINDS = [
    ("static", "pipeline"),
    pytest.param("static", "per_step", marks=EVERY),
    pytest.param("dynamic", "pipeline", marks=EVERY),
]
WAYS = [pytest.param("exits", marks=EVERY), "leaves"]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_an_init_hook_that_ends_its_process(world: World, kind: str, mode: str, way: str) -> None:
    spec = f"pipeline: hooks.{kind}\ntarget: local\ninit_hook_source: hooks.{way}\n"

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 1, done.stderr
    said = done.stderr[done.stderr.index("Run failed") :]
    assert "init hook" in said, done.stderr
    assert ENDS[way] in said, done.stderr


@pytest.mark.parametrize(("kind", "mode"), KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_cleanup_hook_that_ends_its_process(world: World, kind: str, mode: str, way: str) -> None:
    spec = f"pipeline: hooks.{kind}\ntarget: local\ncleanup_hook_source: hooks.{way}\n"

    done = world.submit(spec, "--mode", mode)

    # In a step sandbox ZenML calls it before it records the end of the step.
    fails = (mode, way) == ("per_step", "leaves")
    assert done.exit_code == int(fails), done.stderr
    assert world.only_run().statuses == {"fine": "failed" if fails else "completed"}
    said = [line for line in done.stderr.splitlines() if "cleanup hook" in line.lower()]
    assert any(ENDS[way] in line for line in said), done.stderr
