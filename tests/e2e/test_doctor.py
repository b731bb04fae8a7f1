"""`modalrun doctor`: every check is made, whatever another finds, and nothing is left behind."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: diamond.diamond\ntarget: local\n"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class _OldServer(BaseHTTPRequestHandler):
    """A ZenML server of another version, whose clock is an hour behind."""

    def do_GET(self) -> None:
        told = self.path.startswith("/api/v1/info")
        body = json.dumps({"version": "0.70.0"} if told else {"detail": "no"}).encode()
        self.send_response(200 if told else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(int(time.time()) - 3600)

    def log_message(self, *_: object) -> None:
        """Tests are silent."""


@pytest.fixture
def old_server() -> Iterator[str]:
    """The address of a server that is not what it should be."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _OldServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
    rights = "no login" if world.place is None else "the rights of this user"
    for what in (
        r"Python +3\.",
        r"Modal SDK +1\.",
        r"ZenML +0\.",
        r"local Modal server  starts when it is needed",
        rf"ZenML login +user '{world.user}', project '{world.project_name}'; a run gets {rights}",
        rf"stack +'{world.stack}'",
        rf"artifact store +{world.stack} \((local, /|s3, s3://)",
        r"image +none is built",
        r"run spec +.*run\.yaml",
        r"pipeline +'diamond', \d steps, mode pipeline",
        r"source tree +\d+ files, ",
    ):
        assert any(re.match(rf"ok +{what}", line) for line in lines), (what, done.stdout)
    # There is a clock to compare with only where ZenML has a server.
    counted = "13 ok, 1 skipped" if world.place is None else "14 ok"
    assert re.match(rf"{counted}, in \d+\.\d s \(target local\)", lines[-1])
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
    for name in ("python", "modal", "zenml", "local_server", "spec", "image"):
        assert found[name]["state"] == "ok", found[name]
    for name in ("clock", "zenml_login", "stack", "artifact_store", "pipeline"):
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
    assert "local_server" not in found
    for name in ("pipeline", "source"):
        assert found[name]["state"] == "skipped", found[name]
        assert found[name]["message"] == "not checked: the run spec is a problem"
    assert world.sandboxes() == [] and world.apps() == []


@pytest.mark.exhaustive
def test_servers_that_take_connections_and_never_answer(world: World, silent: str) -> None:
    absent = {
        "ZENML_STORE_URL": silent,
        "MODAL_SERVER_URL": silent,
        "MODAL_TOKEN_ID": "ak-1",
        "MODAL_TOKEN_SECRET": "as-1",
    }

    done = world.modalrun("doctor", "--output", "json", **absent).finish()

    assert done.exit_code == 8
    found = checks(done)
    for name in ("modal_account", "zenml_server"):
        assert (found[name]["state"], found[name]["exit_code"]) == ("problem", 8)
        assert "takes connections" in found[name]["message"] and found[name]["hint"]
        assert silent in found[name]["message"]
    assert found["zenml_login"]["state"] == "skipped"
    assert json.loads(done.stdout)["seconds"] < 20, "the SDKs alone try for 15 and 30 s"


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_a_modal_that_is_not_there(world: World, nobody: str) -> None:
    away = {"MODAL_SERVER_URL": nobody, "MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1"}
    found = checks(world.modalrun("doctor", "--output", "json", **away).finish())
    assert (found["modal_account"]["state"], found["modal_account"]["exit_code"]) == ("problem", 8)
    assert nobody in found["modal_account"]["message"]
    assert found["zenml_login"]["state"] == "ok"


@pytest.mark.exhaustive
def test_a_server_of_another_version_and_another_time(world: World, old_server: str) -> None:
    arguments = ("doctor", "--target", "local", "--output", "json")
    done = world.modalrun(*arguments, ZENML_STORE_URL=old_server).finish()
    found = checks(done)
    assert found["zenml_server"]["state"] == "warning"
    assert "version 0.70.0" in found["zenml_server"]["message"]
    assert "run a server of such a version" in found["zenml_server"]["hint"]
    assert (found["clock"]["state"], found["clock"]["exit_code"]) == ("problem", 3)
    assert re.search(r"3[56]\d\d s ahead of ZenML", found["clock"]["message"])
    assert found["zenml_login"]["state"] == "problem"


@pytest.mark.exhaustive
@pytest.mark.local_store("the artifact store has to be a folder")
def test_an_artifact_store_that_can_t_be_written_to(world: World) -> None:
    ask = "from zenml.client import Client\nresult = Client().active_stack.artifact_store.path"
    store = Path(world.zenml(ask))
    shutil.rmtree(store, ignore_errors=True)
    # A folder in which not even root can create a file.
    store.symlink_to("/proc")

    done = world.modalrun("doctor", "--target", "local", "--output", "json").finish()

    assert done.exit_code == 2
    found = checks(done)
    assert found["artifact_store"]["state"] == "problem"
    assert "nothing can be written to it" in found["artifact_store"]["message"]
    assert "zenml artifact-store describe" in found["artifact_store"]["hint"]
    assert found["stack"]["state"] == "ok"


@pytest.mark.exhaustive
@pytest.mark.local_store("what doesn't fit is the local store")
def test_an_account_and_a_stack_that_fits_another_target(world: World) -> None:
    spec = world.spec(
        "pipeline: diamond.diamond\nmodal: {environment: main, secrets: [wandb], workspace: mine}\n"
    )
    account = world.server()

    # The local Modal server stands for the cloud here; ZenML's database is on this machine.
    done = world.modalrun("doctor", "--output", "json", **account).finish()

    found = checks(done)
    assert done.exit_code == 2
    account_found = found["modal_account"]["message"]
    assert account_found.startswith("workspace 'local', environment 'main'. MODAL_SERVER_URL is")
    assert "zenml login" in found["stack"]["message"] and "target local" in found["stack"]["hint"]
    assert found["artifact_store"]["message"].startswith("works from this machine only")
    assert "zenml==" in found["image"]["message"]

    done = world.modalrun("doctor", str(spec), "--output", "json", **account).finish()

    found = checks(done)
    assert done.exit_code == 3
    for part in ("'local'", "'mine'", "run spec"):
        assert part in found["modal_account"]["message"]
    assert found["pipeline"]["state"] == "ok", found["pipeline"]
