"""Every line of a run once, while all connections to the server are cut again and again."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from modalrun.localmodal import launcher
from modalrun.localmodal.storage.paths import StateDir
from tests.e2e.test_per_step import boxes, most_at_once
from tests.localmodal.proxy import CuttingProxy

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

STEPS, LINES = 5, 2000
LIMIT = 4
"""Steps that may print at the same time."""


def cut_all_connections(world: World) -> CuttingProxy:
    """Lead every command of this world to its server through a proxy that cuts."""
    info = launcher.running(world.state)
    assert info is not None
    proxy = CuttingProxy(
        int(info.url.rpartition(":")[2]), mean_bytes=200_000, mean_seconds=0.15, seed=11
    )
    proxy.begin()
    file = StateDir(world.state).info_file
    file.write_text(json.dumps({**json.loads(file.read_text()), "url": proxy.url}))
    return proxy


@pytest.mark.parametrize(
    "mode", [pytest.param("pipeline", marks=pytest.mark.exhaustive), "per_step"]
)
def test_ten_thousand_lines(world: World, mode: str) -> None:
    spec = (
        f"pipeline: chatty.chatty\ntarget: local\nparameters:\n  steps: {STEPS}\n  count: {LINES}\n"
    )
    flags = ("--mode", mode, "--max-parallelism", str(LIMIT))
    assert world.submit(spec, "--async", *flags).exit_code == 0
    proxy = cut_all_connections(world)

    done = world.modalrun("logs", "--follow", "--output", "jsonl", world.only_run().id).finish()

    proxy.close()
    assert done.exit_code == 0, done.stderr
    assert proxy.cuts > 5
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for text in done.stdout.splitlines():
        line = json.loads(text)
        if " line " in line["text"]:
            seen[line["step"], line["source"]].append(line["text"])
    for step in range(STEPS):
        said = [f"step-{step} line {n} € {'x' * (n % 40)}" for n in range(LINES)]
        # Not one more, not one less, and in the order in which they were printed.
        assert seen.pop((f"chat_{step}", "stderr")) == said[4::5]
        del said[4::5]
        assert seen.pop((f"chat_{step}", "stdout")) == said
    assert not seen
    if mode == "per_step":
        assert most_at_once(boxes(world)) == LIMIT
