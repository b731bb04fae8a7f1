"""What Modal does not offer: told by the plan, and refused by the local Modal server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from modalrun.localmodal import launcher

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: sandboxes.plain\ntarget: local\nsettings:\n  orchestrator: {region: us-eas}\n"


def test_a_region_that_modal_does_not_have(world: World) -> None:
    refused = world.submit(SPEC)
    assert refused.exit_code == 2
    told = " ".join(refused.stderr.split())
    assert "note: the region 'us-eas' is not one that Modal is known to have" in told
    assert "Error: The local Modal server refuses this, as Modal would: the region" in told
    assert "did you mean 'us-east'?" in told
    assert world.sandboxes() == []
    assert world.runs() == []

    # For what Modal adds next year.
    start = [sys.executable, "-m", "modalrun", "local", "start", "--lenient"]
    strict = world.start(start).finish()
    assert strict.exit_code == 2
    assert "was started without --lenient" in strict.stderr
    launcher.stop(world.state)
    done = world.submit(SPEC, MODALRUN_LOCAL_LENIENT="1")
    assert done.exit_code == 0, done.stderr
    (sandbox,) = world.sandboxes()
    assert sandbox.regions == ["us-eas"]
    status = [sys.executable, "-m", "modalrun", "local", "status"]
    assert "lenient" in world.start(status).finish().stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpu", "V100"), "the GPU type 'V100' is not one"),
        (("--cloud", "azure"), "the cloud 'azure' is not one"),
        (("--cpu", "65"), "cpu 65 cores is more than Modal is known to give a sandbox (64 cores)"),
        (("--memory", "400GiB"), "memory 409600 MiB is more than"),
    ],
)
def test_sizes_and_names(world: World, options: tuple[str, str], said: str) -> None:
    refused = world.submit("pipeline: sandboxes.plain\ntarget: local\n", *options)
    assert refused.exit_code == 2
    assert said in " ".join(refused.stderr.split())
    assert world.runs() == []


def test_the_user_of_an_image_and_a_volume_over_the_code(world: World) -> None:
    settings = "settings:\n  docker: {user: me}\n"
    done = world.submit(f"pipeline: sandboxes.plain\ntarget: local\n{settings}")
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "setting user has no effect: Modal ignores the user of an image" in told

    volume = "modal: {volumes: {data: /app}}\n"
    refused = world.submit(f"pipeline: sandboxes.plain\ntarget: local\n{volume}")
    assert refused.exit_code == 2
    assert "the volume 'data' can't be mounted at /app (run spec" in " ".join(
        refused.stderr.split()
    )
    assert len(world.runs()) == 1
