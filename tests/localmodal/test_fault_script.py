"""A fault script with a mistake: told, never ignored."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status

from modalrun.localmodal.server.faults import Fault, Faults


def before(faults: Faults, rpc: str) -> Fault | None:
    return asyncio.run(faults.before(rpc))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"rules": [', "Expecting value: line 1 column 12"),
        ({"rulse": []}, "rulse: there is no such key. Did you mean 'rules'?"),
        (
            [{"rpc": "SandboxCreate", "action": "error", "tmies": 1}],
            "rules[0].tmies: there is no such key. Did you mean 'times'?",
        ),
        ([{"rpc": "SandboxCreate"}], "rules[0].action: "),
        ([{"rpc": "SandboxCreate", "action": "eror"}], "Did you mean 'error'?"),
        ([{"rpc": "SandbxCreate*", "action": "hang"}], "Did you mean 'SandboxCreate"),
        (
            [{"rpc": "Sandbox*", "action": "error", "status": "UNAVAILBLE"}],
            "Did you mean 'UNAVAILABLE'?",
        ),
        ([{"rpc": "*", "action": "hang", "times": "two"}], "rules[0].times: "),
        ({"sandboxes": [{"end": "out-of-memry"}]}, "Did you mean 'out-of-memory'?"),
        ({"sandboxes": [{"end": "evicted", "rol": "run"}]}, "Did you mean 'role'?"),
        ({"lags": {"histroy": 5}}, "lags.histroy: there is no such key. Did you mean 'history'?"),
        ({"builds": [{"contain": "x", "log": []}]}, "Did you mean 'contains'?"),
        ({"scheduling": {"H100": "soon"}}, "scheduling.H100: "),
        ('"text"', "Input should be a dictionary"),
    ],
)
def test_a_mistake_is_told_to_whoever_connects(tmp_path: Path, text: Any, told: str) -> None:
    path = tmp_path / "faults.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    faults = Faults(path)
    with pytest.raises(GRPCError) as caught:
        before(faults, "ClientHello")
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert str(caught.value.message) == faults.current_problem()
    assert told in str(caught.value.message)
    assert str(path) in str(caught.value.message)
    # The server itself goes on, and what is repaired counts.
    assert before(faults, "SandboxList") is None
    path.write_text(json.dumps([{"rpc": "SandboxL?st", "action": "disconnect"}]))
    assert before(faults, "ClientHello") is None
    assert before(faults, "SandboxList") is not None
    path.unlink()
    assert faults.current_problem() is None
