"""What stands in ZenML's metadata of a run, anybody may have written: a resume believes none of it.

Every step of the run and every user of the ZenML server can change it. The next resume creates a
sandbox with the Modal token of the user who resumes.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modalrun.submit.source.staging import hash_files, hash_tree
from tests.e2e.test_per_step import boxes, terminate, waiting

if TYPE_CHECKING:
    from tests.world import Result, World

LONG = 300

WRITE = """
import json
from zenml.client import Client
from zenml.enums import MetadataResourceTypes
from zenml.models import RunMetadataResource
client = Client()
run = client.list_pipeline_runs(size=1).items[0]
resource = RunMetadataResource(id=run.id, type=MetadataResourceTypes.PIPELINE_RUN)
client.create_run_metadata(json.loads({values!r}), [resource])
result = None
"""


def write(world: World, values: dict[str, Any]) -> None:
    """Write metadata of the run, as any of its steps can."""
    world.zenml(WRITE.format(values=json.dumps(values)))


def packed(document: dict[str, Any]) -> str:
    return base64.b85encode(zlib.compress(json.dumps(document).encode())).decode()


def resume(world: World, *arguments: str) -> Result:
    command = [sys.executable, "-m", "modalrun", "resume", world.only_run().id, *arguments]
    return world.start(command).finish(LONG)


def lost_run(world: World) -> Path:
    """Lose the driver of a run whose step waits at a gate; return the file that opens it."""
    command, gate = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    terminate(world, driver.id)
    assert command.finish(LONG).exit_code == 7
    return gate.path


@pytest.mark.e2e
def test_a_resume_runs_what_was_submitted(world: World) -> None:
    gate = lost_run(world)
    stolen = world.root / "stolen"
    files = {path: text[:12] for path, text in hash_files(world.project).items()}
    (driver,) = (b for b in world.sandboxes() if b.tags["modalrun-role"] == "run")
    sandbox = {
        "command": ["/bin/sh", "-c", f"echo $MODAL_TOKEN_SECRET > {stolen}"],
        "image": driver.image_id,
        "resources": {},
        "timeout": 600,
    }
    settings = {"mode": "per_step", "app_name": "zenml-pipeline-waiting"}
    plan = {"target": "local", "pipeline": "waiting", "settings": settings, "run_sandbox": sandbox}
    source = {"root": str(world.project), "digest": hash_tree(files), "files": files}
    manifest = {
        "run_id": world.only_run().id,
        "plan": plan,
        "failure_mode": "fail_fast",
        "source": source,
    }
    forged = {"app": "another", "app_id": "ap-other", "mode": "pipeline", "timeout": 1}
    write(
        world,
        {
            "modalrun_manifest_0": packed(manifest),
            **{f"modalrun_{name}": value for name, value in forged.items()},
        },
    )
    with gate.open("w"):
        pass
    world.wait_until(lambda: boxes(world, "wait")[0].finished_at, "the step is done")

    done = resume(world, "--source-root", str(world.project))

    assert not stolen.exists()
    assert done.exit_code == 0, done.stderr
    assert world.only_run().status == "completed"
    assert {box.app_name for box in world.sandboxes()} == {"zenml-pipeline-waiting"}
    assert {
        tuple(b.command[2:]) for b in world.sandboxes() if b.tags["modalrun-role"] == "run"
    } == {tuple(driver.command[2:])}


@pytest.mark.e2e
@pytest.mark.exhaustive
@pytest.mark.parametrize("path", ["../../../planted", "/etc/hostname", "a/../../planted"])
def test_no_path_of_the_record_is_written_or_read(world: World, path: str) -> None:
    lost_run(world)
    source = {"root": "/etc", "digest": "0" * 64, "files": {path: "0" * 12}}
    write(world, {"modalrun_source_0": packed(source)})

    done = resume(world, "--source-root", str(world.project))

    assert done.exit_code == 2, done.stderr
    assert "can't be read: files: " in " ".join(done.stderr.split())
    assert not list(world.root.rglob("planted"))
    assert terminate_all(world)


def terminate_all(world: World) -> bool:
    done = world.modalrun("stop", world.only_run().id, "--force").finish(LONG)
    return done.exit_code == 0


@pytest.mark.e2e
@pytest.mark.exhaustive
def test_a_step_that_changes_its_record_is_stopped_all_the_same(world: World) -> None:
    command, _ = waiting(world)
    world.wait_until(lambda: world.only_run().steps, "the step is recorded")
    command.stderr.wait_for("sandbox")
    write(
        world,
        {
            "modalrun_app": "another",
            "modalrun_app_id": "ap-0123456789abcdefghijkl",
            "modalrun_sandbox_id": "sb-0123456789abcdefghijkl",
        },
    )

    assert terminate_all(world)

    assert command.finish(LONG).exit_code == 7
    assert all(box.finished_at for box in world.sandboxes())
    assert world.only_run().status == "stopped"
