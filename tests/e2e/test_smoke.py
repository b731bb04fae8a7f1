"""`modalrun smoke`: it passes on the local Modal server, names each fault, and leaves nothing."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from modalrun.doctor.smoke_checks import LINES

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SPEC = """\
pipeline: diamond.diamond
target: local
settings: {orchestrator: {region: us-east, modal_environment: dev}}
"""
LOCAL = ("smoke", "--target", "local", "--yes", "--output", "json")


def lines(done: Result) -> dict[str, Any]:
    report = json.loads(done.stdout)
    assert (report["format"], report["version"]) == ("modalrun-smoke", 1)
    assert report["exit_code"] == done.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return {line["name"]: line for line in report["checks"]}


def assert_nothing_is_left(world: World) -> None:
    assert world.sandboxes() and all(box.status for box in world.sandboxes())
    for environment in ("main", "dev"):
        arguments = ("list", "--json", "--env", environment)
        apps = json.loads(world.modal("app", *arguments).stdout or "[]")
        assert all("stopped" in str(app) for app in apps), apps
    assert list((world.state / "volumes").glob("*")) == [], "the volume is left"
    assert not list(world.temporary.glob("modalrun-smoke-*"))
    assert world.runs() == []


def test_it_passes_on_the_local_server_and_leaves_nothing(world: World) -> None:
    spec = world.spec(SPEC)
    assert world.modal("environment", "create", "dev").exit_code == 0
    report = ("smoke", "--spec", str(spec), "--gpu", "T4", "--output", "json")

    done = world.modalrun(*report).finish()

    assert done.exit_code == 0, done.stdout + done.stderr
    found = lines(done)
    assert list(found) == list(LINES)
    broken = {name: line for name, line in found.items() if line["state"] == "broken"}
    assert broken == {}
    for name in ("zenml", "artifact_store", "app", "child", "list", "name", "live", "late"):
        assert found[name]["state"] == "ok", found[name]
    for name in ("history", "exit_0", "exit_3", "kill", "volume", "removed", "clock", "init"):
        assert found[name]["state"] == "ok", found[name]
    # What a process of this machine can't be, in words that say what modalrun does about it.
    for name in ("image", "out_of_memory", "gpu"):
        assert found[name]["state"] == "differs" and found[name]["hint"], found[name]
    assert "environment 'dev'" in found["account"]["message"]
    assert "it costs nothing" in done.stderr
    home = str(world.root / "another-home")
    assert home not in done.stdout
    assert {tuple(box.regions) for box in world.sandboxes()} <= {("us-east",), ()}
    assert_nothing_is_left(world)


@pytest.mark.exhaustive
def test_ctrl_c_removes_everything(world: World) -> None:
    command = [sys.executable, "-m", "modalrun", *LOCAL]
    running = world.start(command)
    world.wait_until(lambda: len(world.sandboxes()) > 5, "sandboxes are created")
    running.signal(signal.SIGINT)

    done = running.finish()

    assert done.exit_code == 130
    assert done.stdout == ""
    assert "The smoke test ended early: the sandboxes, the app and the volume" in done.stderr
    assert_nothing_is_left(world)


def test_nobody_can_be_asked(world: World) -> None:
    done = world.modalrun("smoke").finish()

    assert done.exit_code == 2
    assert "nobody can be asked" in done.stderr and "--yes" in done.stderr
    assert world.sandboxes() == []


@pytest.mark.exhaustive
def test_the_text(world: World) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps({"lags": {"list": 5}}))

    done = world.modalrun("smoke", "--target", "local", NO_COLOR="1").finish()

    assert done.exit_code == 0, done.stdout
    assert "small sandboxes, stack '" in done.stderr
    shown = done.stdout.splitlines()
    assert any(line.startswith("ok       driver: app") for line in shown)
    assert any(line.startswith("ok       first process") for line in shown)
    assert any(line.strip().startswith("-> 'stop' lists again") for line in shown)
    assert "target local" in shown[-1] and "broken" not in done.stdout


CREATION = "SandboxCreate*"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("faults", "line", "state", "fragment"),
    [
        ({"sandboxes": [{"end": "failure-0", "times": None}]}, "exit_0", "broken", "code 0"),
        ({"sandboxes": [{"end": "out-of-memory", "times": None}]}, "exit_0", "broken", "memory"),
        ({"sandboxes": [{"end": "evicted", "times": None}]}, "exit_3", "differs", "read as"),
        (
            {"sandboxes": [{"end": "preempted", "after": 0.5, "grace": 0.3, "times": None}]},
            "timeout",
            "broken",
            "preempted",
        ),
        (
            {"sandboxes": [{"end": "not-scheduled", "after": 0, "times": None}]},
            "live",
            "broken",
            "could not start",
        ),
        ({"scheduling": {"T4": None}}, "gpu", "differs", "no place"),
        ({"scheduling": {"T4": 2}}, "gpu", "differs", "none is seen"),
        ({"lags": {"history": 12}}, "history", "differs", "after the end"),
        ({"lags": {"list": 5}}, "list", "differs", "after"),
        (
            [{"rpc": CREATION, "times": None, "action": "error", "status": "RESOURCE_EXHAUSTED"}],
            "exit_0",
            "broken",
            "no room",
        ),
        ([{"rpc": "AppStop", "times": None, "action": "error"}], "removed", "broken", "left"),
        (
            {"builds": [{"contains": "modal==", "log": ["No matching distribution"]}]},
            "image",
            "broken",
            "No matching distribution",
        ),
        ([{"rpc": CREATION, "action": "hang", "times": None}], "volume", "broken", "no end"),
        ([{"rpc": CREATION, "action": "lose_answer", "times": 3}], "volume", "ok", "reads"),
    ],
    ids=lambda value: value if isinstance(value, str) and value in LINES else "",
)
def test_a_fault_is_named(world: World, faults: Any, line: str, state: str, fragment: str) -> None:
    world.server()
    (world.state / "faults.json").write_text(json.dumps(faults))

    done = world.modalrun(*LOCAL, "--gpu", "T4").finish(200)

    found = lines(done)
    assert found[line]["state"] == state, found
    assert fragment in found[line]["message"]
    assert found[line]["hint"] or state == "ok"
    assert done.exit_code == (1 if any(f["state"] == "broken" for f in found.values()) else 0)
