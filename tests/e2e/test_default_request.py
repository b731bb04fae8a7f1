"""CPU and memory of a sandbox for which nothing asks for any."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


def test_a_default_request_is_shown_priced_and_sent(world: World) -> None:
    path = str(world.spec("pipeline: sandboxes.plain\ntarget: modal\n"))
    command = [sys.executable, "-m", "modalrun", "plan", path]
    text = world.start(command).finish().stdout
    assert "0.5 (default)" in text
    assert "1024 MiB (default)" in text
    # Half a core, a GiB, six hours.
    assert "Cost: at most $0.5699" in text
    box = json.loads(world.start([*command, "-o", "json"]).finish().stdout)["run_sandbox"]
    assert (box["cpu"], box["memory_mib"]) == (0.5, 1024)
    assert box["origins"]["memory"] == {"value": "1024MiB", "origin": "default"}

    done = world.submit("pipeline: sandboxes.plain\ntarget: local\n")
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    assert (sandbox.milli_cpu, sandbox.memory_mb) == (500, 1024)
