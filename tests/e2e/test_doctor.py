"""`modalrun doctor`: every check is made, whatever another finds, and nothing is left behind."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Result, World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: diamond.diamond\ntarget: local\n"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing answers, and nothing can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def checks(done: Result) -> dict[str, Any]:
    report = json.loads(done.stdout)
    assert (report["format"], report["version"]) == ("modalrun-doctor", 1)
    assert report["exit_code"] == done.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return {check["name"]: check for check in report["checks"]}


def test_all_is_well_and_nothing_is_left_behind(world: World) -> None:
    spec = world.spec(SPEC)
    configuration = sorted(world.zenml_config.rglob("*"))

    done = world.modalrun("doctor", str(spec), NO_COLOR="1").finish()

    assert done.exit_code == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for what in (
        r"Python +3\.",
        r"Modal SDK +1\.",
        r"ZenML +0\.",
        r"local Modal server  starts when it is needed",
        rf"ZenML login +user '{world.user}', project '{world.project_name}'",
        rf"stack +'{world.stack}'",
        rf"artifact store +{world.stack} \((local, /|s3, s3://)",
        r"image +none is built",
        r"run spec +.*run\.yaml",
        r"pipeline +'diamond', \d steps, mode pipeline",
    ):
        assert any(re.match(rf"ok +{what}", line) for line in lines), (what, done.stdout)
    assert re.match(r"13 ok, in \d+\.\d s \(target local\)", lines[-1])
    assert world.runs() == []
    assert not world.state.exists(), "a server was started for good"
    left = set(world.zenml_config.rglob("*")) - set(configuration)
    assert not [path for path in left if path.is_file()], "an object was left in the store"
    assert not list(world.temporary.iterdir())


def test_a_check_that_fails_hides_no_other(world: World, nobody: str) -> None:
    spec = world.spec(SPEC)
    absent = {"ZENML_STORE_URL": nobody}

    done = world.modalrun("doctor", str(spec), "--output", "json", **absent).finish()

    assert done.exit_code == 8
    found = checks(done)
    assert (found["zenml_server"]["state"], found["zenml_server"]["exit_code"]) == ("problem", 8)
    assert nobody in found["zenml_server"]["message"] and found["zenml_server"]["hint"]
    assert json.loads(done.stdout)["seconds"] < 15, "the SDKs alone try for half a minute"
    for name in ("python", "modal", "zenml", "local_server", "spec", "image", "clock"):
        assert found[name]["state"] == "ok", found[name]
    for name in ("zenml_login", "stack", "artifact_store", "pipeline"):
        assert found[name]["state"] == "skipped", found[name]

    misspelt = world.spec("pipeline: diamond.diamond\ntargt: modal\n", "misspelt.yaml")
    token = world.server() | {"MODAL_TOKEN_SECRET": "as-wrong-secret-1234"}
    done = world.modalrun("doctor", str(misspelt), "--output", "json", **absent, **token).finish()

    assert done.exit_code == 3
    found = checks(done)
    assert (found["modal_account"]["state"], found["modal_account"]["exit_code"]) == ("problem", 3)
    assert "as-wrong-secret-1234" not in done.stdout + done.stderr
    assert found["zenml_server"]["exit_code"] == 8
    assert found["spec"]["exit_code"] == 2
    assert f"{misspelt}:2" in found["spec"]["message"] and "target" in found["spec"]["hint"]
    assert "local_server" not in found and "pipeline" not in found
    assert world.sandboxes() == [] and world.apps() == []


@pytest.mark.exhaustive
def test_an_account_and_a_stack_that_fits_another_target(world: World) -> None:
    spec = world.spec(
        "pipeline: diamond.diamond\nmodal: {environment: main, secrets: [wandb], workspace: mine}\n"
    )
    account = world.server()

    # The local Modal server stands for the cloud here; ZenML's database is on this machine.
    done = world.modalrun("doctor", "--output", "json", **account).finish()

    found = checks(done)
    assert done.exit_code == 2
    assert found["modal_account"]["message"] == "workspace 'local', environment 'main'"
    assert "zenml login" in found["stack"]["message"] and "target: local" in found["stack"]["hint"]
    assert found["artifact_store"]["state"] == "ok"
    assert "zenml==" in found["image"]["message"]

    done = world.modalrun("doctor", str(spec), "--output", "json", **account).finish()

    found = checks(done)
    assert done.exit_code == 3
    for part in ("'local'", "'mine'", "run spec"):
        assert part in found["modal_account"]["message"]
    assert found["pipeline"]["state"] == "ok", found["pipeline"]
