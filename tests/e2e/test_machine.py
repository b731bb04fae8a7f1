"""Commands in a broken surrounding: an error that names the cause, before anything is created."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.local_store("it damages the files of a local store"),
]

SPEC = "pipeline: diamond.diamond\ntarget: local\n"


def shell(world: World, script: str) -> Result:
    """Run a shell script that uses `$MODALRUN`."""
    command = ["/bin/sh", "-c", script]
    modalrun = f"{sys.executable} -m modalrun"
    return world.start(command, cwd=world.project, MODALRUN=modalrun).finish()


@pytest.mark.parametrize(
    ("name", "content", "exit_code", "message"),
    [
        ("config.yaml", b"", 2, "config.yaml is empty"),
        pytest.param(
            "config.yaml",
            b"store: {type: martian, url: x}",
            2,
            "config.yaml is damaged: store.type",
            marks=pytest.mark.exhaustive,
        ),
        ("local_stores/default_zen_store/zenml.db", b"x" * 9000, 8, "file is not a database"),
    ],
)
def test_zenmls_files_are_damaged(
    world: World, name: str, content: bytes, exit_code: int, message: str
) -> None:
    path = Path(world.environment["ZENML_CONFIG_PATH"]) / name
    path.write_bytes(content)

    done = world.submit(SPEC)

    assert done.exit_code == exit_code, done.stderr
    assert message in done.stderr
    assert str(path) in done.stderr
    assert path.read_bytes() == content


def test_modals_configuration_is_damaged(world: World) -> None:
    world.server()
    path = Path(world.environment["MODALRUN_LOCAL_STATE"]) / "modal.toml"
    path.write_text("[[[ no")

    done = world.submit(SPEC)

    assert done.exit_code == 2, done.stderr
    assert f"Modal's configuration {path} can't be read" in done.stderr
    assert world.runs() == []
    # For the end of the test.
    path.write_text("")


@pytest.mark.parametrize("command", ["list", "submit run.yaml"])
def test_the_current_folder_is_gone(world: World, command: str) -> None:
    gone = world.root / "gone"
    done = shell(world, f"mkdir {gone} && cd {gone} && rmdir {gone} && $MODALRUN {command}")

    assert done.exit_code == 2, done.stderr
    assert "The current folder does not exist any more." in done.stderr


@pytest.mark.parametrize(
    "closed",
    [
        "<&- >&- 2>&-",
        *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ("<&-", ">&-", "2>&-")),
    ],
)
def test_closed_streams_are_as_dev_null(world: World, closed: str) -> None:
    done = shell(world, f"$MODALRUN --version {closed} && $MODALRUN list {closed}")

    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("modalrun ") == (closed in {"<&-", "2>&-"})
    assert done.stderr == ("" if "2>&-" in closed else "No runs.\n")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help", 0),
        ("submit", 0),
        ("plan run.yaml", 0),
        ("compile run.yaml --output deployment.json", 0),
        ("doctor run.yaml", 0),
        ("status latest", 4),
        ("stop", 4),
        ("local start", 0),
        ("local env", 0),
        ("local logs", 0),
        ("local status", 4),
    ],
)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_every_command_with_closed_streams(
    world: World, command: str, code: int, closed: str
) -> None:
    world.spec(SPEC)

    done = shell(world, f"$MODALRUN {command} {closed}")

    assert done.exit_code == code, done.stderr


@pytest.mark.exhaustive
def test_a_run_with_all_streams_closed(world: World) -> None:
    world.spec(SPEC)

    done = shell(world, "$MODALRUN submit run.yaml <&- >&- 2>&-")

    assert done.exit_code == 0
    assert world.only_run().status == "completed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("command", ["--version", "submit run.yaml"])
def test_output_that_can_not_be_written(world: World, command: str) -> None:
    world.spec(SPEC)

    done = shell(world, f"$MODALRUN {command} > /dev/full")

    assert done.exit_code == 8, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="Linux has it")
def test_a_spec_without_an_end(world: World) -> None:
    done = shell(world, "$MODALRUN submit /dev/zero")

    assert done.exit_code == 2
    assert "is no regular file" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_little_memory(world: World) -> None:
    world.spec(SPEC)

    done = shell(world, "ulimit -v 250000; $MODALRUN submit run.yaml")

    assert done.exit_code == 2, done.stderr
    assert "needs at least 512 MiB" in done.stderr
    assert world.runs() == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (f"run_name: {'n' * 256}", "at most 255 characters as the name of a pipeline run"),
        (f"environment: {{BIG: {'x' * 200_000}}}", "BIG of the pipeline has 200,004 bytes"),
    ],
)
def test_what_is_too_long(world: World, more: str, message: str) -> None:
    done = world.submit(f"{SPEC}{more}\n")

    assert done.exit_code == 2, done.stderr
    assert message in done.stderr
    assert world.runs() == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_not_utf8(world: World) -> None:
    subprocess.run(["touch", b"caf\xe9"], cwd=world.project, check=True)

    done = world.submit(SPEC)

    assert done.exit_code == 0, done.stderr
    assert r"note: the file caf\xe9 is left out: its name is not UTF-8" in done.stderr


@pytest.mark.parametrize(
    "has_url", [False, pytest.param(True, marks=pytest.mark.exhaustive, id="ZENML_STORE_URL")]
)
def test_several_commands_at_once_on_a_new_machine(world: World, has_url: bool) -> None:
    world.spec(SPEC)
    new = {"ZENML_CONFIG_PATH": str(world.root / "new")}
    if has_url:
        # Then each command has a copy of the configuration.
        (world.root / "store").mkdir()
        new["ZENML_STORE_URL"] = f"sqlite:///{world.root / 'store' / 'zenml.db'}"
    modalrun = [sys.executable, "-m", "modalrun"]
    texts = ("list", "list", "plan run.yaml", "status latest")

    started = [world.start([*modalrun, *text.split()], cwd=world.project, **new) for text in texts]

    done = [command.finish() for command in started]
    assert [one.exit_code for one in done] == [0, 0, 0, 4], [one.stderr for one in done]


@pytest.mark.exhaustive
def test_a_machine_that_is_new_to_zenml_is_told_nothing_of_the_store(world: World) -> None:
    command = [sys.executable, "-m", "modalrun", "plan", str(world.spec(SPEC))]
    done = world.start(command, ZENML_CONFIG_PATH=str(world.root / "new")).finish()
    assert (done.exit_code, "active stack" in done.stderr) == (0, False), done.stderr
