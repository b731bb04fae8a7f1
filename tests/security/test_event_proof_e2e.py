"""What a step prints never passes for an event of modalrun, and no step sees a Modal token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("pipeline", "mode"),
    [
        ("forging", "pipeline"),
        ("dynamic_forging", "per_step"),
        pytest.param("forging", "per_step", marks=pytest.mark.exhaustive),
        pytest.param("dynamic_forging", "pipeline", marks=pytest.mark.exhaustive),
    ],
)
def test_a_step_forges_no_event_and_finds_no_token(world: World, pipeline: str, mode: str) -> None:
    spec = f"pipeline: forging.{pipeline}\ntarget: local\n"

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 0, done.stderr
    assert set(world.only_run().statuses.values()) == {"completed"}
    # Shown as the lines that they are.
    assert all('"modalrun' in line for line in done.stderr.splitlines() if "FORGED" in line)
    logs = world.modalrun("logs", "--output", "jsonl", world.only_run().id).finish()
    lines = [json.loads(line) for line in logs.stdout.splitlines()]
    assert "FORGED" not in {line["step"] for line in lines}
    forged = [line for line in lines if line["text"] == "forged all"]
    looked = [line["text"] for line in lines if "processes, tokens: " in line["text"]]
    assert forged and len(looked) == len(forged)
    assert all(text.endswith("tokens: []") for text in looked), looked
    printed = b"".join(path.read_bytes() for path in world.log_files())
    assert printed.count(b"FORGED") > 20
    events = [line for line in printed.split(b"\n") if b'\x1e{"modalrun"' in line]
    assert events
    assert not [line for line in events if b"FORGED" in line]
