"""The disk of ZenML's local store is full when a step ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.exhaustive,
    pytest.mark.local_store("it fills the disk of the SQLite file"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]

PER_STEP = "settings: {orchestrator: {mode: per_step}}\n"
MODES = pytest.mark.parametrize("mode", ["", PER_STEP], ids=["pipeline", "per_step"])


class Disk:
    """A small disk, which can be filled."""

    def __init__(self, folder: Path) -> None:
        self._filling = folder / "filling"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filling.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        """Leave room again."""
        self._filling.unlink()


@pytest.fixture
def disk(world: World) -> Iterator[Disk]:
    """The disk of the world's ZenML configuration and local store."""
    folder, kept = world.zenml_config, world.root / "zenml-kept"
    shutil.copytree(folder, kept, symlinks=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no tmpfs")
    shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def spec(gate: object, mode: str) -> str:
    return f"pipeline: waiting.waiting\ntarget: local\nparameters: {{gate: {gate}}}\n{mode}"


@MODES
def test_the_end_is_recorded_when_there_is_room(world: World, disk: Disk, mode: str) -> None:
    gate = world.gate()
    command = world.popen(spec(gate, mode))
    command.stdout.wait_for("wait | waiting in")
    disk.fill()
    gate.open()
    command.stderr.wait_for("ZenML's database can't be written: database or disk is full")
    disk.free()

    done = command.finish()
    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert (run.status, run.statuses) == ("failed", {"wait": "failed"})
    database = world.zenml_config / "local_stores/default_zen_store/zenml.db"
    assert f"ZenML's database {database} can't be written" in done.stderr.replace("\n", " ")
    world.wait_until(
        lambda: all(box.finished_at for box in world.sandboxes()), "every sandbox has ended"
    )


@MODES
@pytest.mark.timeout(900)
def test_a_disk_that_stays_full(world: World, disk: Disk, mode: str) -> None:
    gate = world.gate()
    # Another driver executes the step again in any case.
    once = "settings.orchestrator.infrastructure_retries=0"
    command = world.popen(spec(gate, mode), "--set", once)
    command.stdout.wait_for("wait | waiting in")
    run_id = world.only_run().id
    disk.fill()
    gate.open()
    # A step that could not be recorded may be executed again.
    gate.path.unlink()
    gate.path.touch()

    done = command.finish(800)

    assert done.exit_code in {1, 8}, done.stderr
    assert "can't be written" in done.stderr
    assert "error in modalrun itself" not in done.stderr
    assert "Internal error" not in done.stdout + done.stderr
    world.wait_until(
        lambda: all(box.finished_at for box in world.sandboxes()), "every sandbox has ended"
    )
    disk.free()
    settled = world.modalrun("reconcile", run_id).finish()
    assert settled.exit_code == 0, settled.stderr
    assert (world.only_run().status, world.only_run().statuses) == ("failed", {"wait": "failed"})
