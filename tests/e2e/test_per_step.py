"""Runs with a sandbox for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import World

pytestmark = pytest.mark.e2e


def test_first(world: World) -> None:
    done = world.submit(
        "pipeline: diamond.diamond\ntarget: local\nsettings: {orchestrator: {mode: per_step}}\n"
    )
    print(done.stdout)
    print(done.stderr)
    print(world.runs())
    for b in world.sandboxes():
        print(b)
    assert 0
