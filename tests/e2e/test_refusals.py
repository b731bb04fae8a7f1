"""What can't be run is refused with its exit code, and nothing is created."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def nothing_preloaded(world: World) -> None:
    """Nothing is run here that would be worth preparing for."""
    world.environment["MODALRUN_LOCAL_PRELOAD"] = ""
    world.serves_ahead = False


START = "pipeline: refused.training\ntarget: local\n"


def assert_nothing_created(world: World, done: Result) -> None:
    assert world.runs() == []
    assert world.sandboxes() == []
    assert world.apps() == []
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("pipelin: a.b\n", 1, r"unknown key 'pipelin'.*\n.*'pipeline'"),
        ("target: local\n", None, r"'pipeline' is missing"),
        ("pipeline: refused/training.py\n", 1, r"not a source"),
        ("pipeline: [refused.training]\n", 1, r"'pipeline' must be a string, not a list"),
        (f"{START}target: moon\n", 3, r"'target' is given a second time"),
        ("pipeline: a.b\ntarget: moon\n", 2, r"'target'.*'modal' or 'local'.*'moon'"),
        (f"{START}settings:\n  orchestrator:\n    gpuu: T4\n", 5, r"'gpuu'.*\n.*'gpu'"),
        (
            f"{START}settings:\n  orchestrator:\n    timeout: soon\n",
            5,
            r"timeout' .*whole.*, not 'soon'",
        ),
        (f"{START}settings:\n  orchestrator:\n    timeout: 86401\n", 5, r"timeout.*86400.*86401"),
        (f"{START}settings:\n  orchestrator:\n    mode: perstep\n", 5, r"'mode'|mode.*'per_step'"),
        (f"{START}settings:\n  orchestrator.kubeflow:\n    a: 1\n", 4, r"'kubeflow'.*no effect"),
        (f"{START}settings:\n  resource:\n    a: 1\n", 4, r"'resource'.*\n.*'resources'"),
        (f"{START}steps:\n  train:\n    parameter: {{}}\n", 5, r"'parameter'.*\n.*'parameters'"),
        (f"{START}steps: [train]\n", 3, r"'steps' must be a mapping"),
        (f"{START}modal:\n  enviroment: dev\n", 4, r"'enviroment'.*\n.*'environment'"),
        (f"{START}source_root: nowhere\n", 3, r"no folder .*nowhere"),
        (f"{START}settings: {{\n", 3, r"not YAML: the { that begins here is not closed"),
        ("", None, r"is empty"),
        ("- a\n- b\n", 1, r"a list"),
    ],
)
def test_a_wrong_run_spec_is_refused_before_anything_is_imported(
    world: World, text: str, line: int | None, said: str
) -> None:
    path = world.spec(text)

    done = world.submit(path)

    assert done.exit_code == 2
    assert re.search(said, done.stderr, re.I), done.stderr
    assert (f"{path}:{line}" if line else str(path)) in done.stderr
    assert_nothing_created(world, done)
    assert not world.state.exists(), "no server was started"


def test_a_run_spec_that_is_not_there_is_refused(world: World) -> None:
    missing = world.submit(world.project / "no-such.yaml")
    assert missing.exit_code == 2
    assert "no-such.yaml" in missing.stderr and "no file" in missing.stderr
    assert_nothing_created(world, missing)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--targt", "local"], "--targt"), (["--target", "moon"], "moon"), (["more.yaml"], "more")],
)
def test_a_wrong_command_line_is_refused(world: World, arguments: list[str], said: str) -> None:
    done = world.submit(START, *arguments)

    assert done.exit_code == 2, done.stderr
    assert said in done.stderr
    assert "error in modalrun" not in done.stderr
    assert world.runs() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compile", "SPEC", "-o", "dep.yaml"], "'--output dep.json'"),
        (["compile", "SPEC", "-o", "."], "'--output deployment.json'"),
        (["init", "--target", "local", "--spec", "absent/run.yaml"], "Nothing was registered"),
    ],
)
def test_a_file_that_can_t_be_written_or_used_is_refused_before_all_else(
    world: World, arguments: list[str], said: str
) -> None:
    spec = str(world.spec(START))
    done = world.modalrun(*(spec if part == "SPEC" else part for part in arguments)).finish()
    assert done.exit_code == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert not (world.project / "dep.yaml").exists()
    ask = "from zenml.client import Client\nresult = [s.name for s in Client().list_stacks()]"
    assert "modalrun_local" not in world.zenml(ask)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("pipeline: unimportable.training\n", 1, r"unimportable\.py:3.*RuntimeError: no such luck"),
        ("pipeline: refused.helper\n", 1, r"not a ZenML pipeline.*function"),
        (
            "pipeline: refused.training\nsteps:\n  trian: {enable_cache: false}\n",
            3,
            r"no step 'trian'.*\n.*'train'",
        ),
        # What is wrong in the code is named by its place there.
        ("pipeline: refused.misspelt\n", None, r"'misspelt' in code: .*'gpuu'.*'gpu'"),
        # What ZenML would drop without a word.
        (
            "pipeline: refused.training\nretry: {max_retires: 2}\n",
            2,
            r"max_retires.*\n.*max_retries",
        ),
        *(
            pytest.param(*case, marks=pytest.mark.exhaustive)
            for case in (
                ("pipeline: refusd.training\n", 1, r"no module 'refusd'"),
                ("pipeline: refused.trainin\n", 1, r"no 'trainin'.*\n.*refused\.training"),
                ("pipeline: refused.needy\n", None, r"needs values for: epochs"),
                (
                    "pipeline: refused.training\nparameters:\n  rat: 1\n",
                    3,
                    r"no parameter 'rat'.*\n.*'rate'",
                ),
                (
                    "pipeline: refused.hasty\n",
                    None,
                    r"'hasty' in code: .*timeout' must be a whole",
                ),
                (
                    "pipeline: refused.training\nsettings:\n  resources:\n    memory: 16Gi\n",
                    4,
                    r"memory",
                ),
                ("pipeline: refused.training\nmodel: tiny\n", 2, r"'model' must be a mapping"),
                (
                    "pipeline: refused.training\nsteps:\n  train:\n    parameters: {rat: 1}\n",
                    4,
                    r"the step 'train' has no parameter 'rat'",
                ),
                (
                    "pipeline: refused.training\nenable_cache: true\ncache_policy: none-such\n"
                    "parameters: {rate: fast, rat: 1}\n",
                    3,
                    r"cache_policy'.*\n.*:4: .*no parameter 'rat'.*\n.*:4: .*rate' must be",
                ),
            )
        ),
    ],
)
def test_what_only_zenml_can_find_out_is_refused_too(
    world: World, text: str, line: int | None, said: str
) -> None:
    path = world.spec(text)

    done = world.submit(path, "--target", "local")

    assert done.exit_code == 2, done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert line is None or f"{path}:{line}" in done.stderr
    assert_nothing_created(world, done)


def test_an_unknown_stack_is_not_found(world: World) -> None:
    path = world.spec(f"{START}stack: defualt\n")

    done = world.submit(path)

    assert done.exit_code == 4
    assert re.search(r"no stack 'defualt'.*\n.*'default'", done.stderr), done.stderr
    assert f"{path}:3" in done.stderr
    assert_nothing_created(world, done)


def test_a_wrong_token_is_refused(world: World) -> None:
    wrong = {"MODAL_TOKEN_SECRET": "as-wrong-secret-1234"}

    done = world.submit("pipeline: refused.training\n", **(world.server() | wrong))

    assert done.exit_code == 3, done.stderr
    assert "token" in done.stderr
    assert "as-wrong-secret-1234" not in done.stderr
    assert "Traceback" not in done.stderr
    assert (world.sandboxes(), world.apps()) == ([], [])
    # The token is first tried when the run has its id; the run must not look alive then.
    assert all(run.status == "failed" for run in world.runs())


def test_no_token_at_all_is_refused(world: World) -> None:
    reach = {"MODAL_SERVER_URL": world.server()["MODAL_SERVER_URL"]}

    done = world.submit("pipeline: refused.training\n", **reach)

    assert done.exit_code == 3, done.stderr
    assert "modal setup" in done.stderr
    note, _, rest = done.stderr.partition("\n")
    assert note.startswith("note: MODAL_SERVER_URL is the local Modal server's")
    assert_nothing_created(world, replace(done, stderr=rest))


def test_an_unreachable_modal_is_reported_within_seconds(world: World) -> None:
    with socket.socket() as taken:
        # Bound but not listening: nobody else gets the port, and connections are refused.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        done = world.submit(
            "pipeline: refused.training\n",
            MODAL_SERVER_URL=url,
            MODAL_TOKEN_ID="ak-1",
            MODAL_TOKEN_SECRET="as-1",
        )
        took = time.monotonic() - began

    assert done.exit_code == 8, done.stderr
    assert url in done.stderr
    # Most of it is importing ZenML; the SDK alone would try for almost a minute.
    assert took < 30
    assert_nothing_created(world, done)
