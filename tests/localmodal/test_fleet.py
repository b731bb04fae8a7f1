"""The driver's fleet of step sandboxes, on a server that fails on order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import modal
import pytest

from modalrun.localmodal.storage.paths import StateDir
from modalrun.modal_api import step_sandboxes as modal_fleet
from modalrun.modal_api.step_sandboxes import SHARE, StepSandbox, StepSandboxes
from modalrun.run.manifest import RunManifest, Source
from modalrun.run.run_plan import RunPlan, RunSettings
from modalrun.run.sandbox_exit import ExitKind
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.tags import TAG_ATTEMPT, TAG_ROLE, TAG_RUN, TAG_STEP

from .support import PATIENCE, Sdk

Scene = Callable[[StepSandboxes], Awaitable[None]]


@pytest.fixture
def play(sdk: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], list[str]]:
    """Act with a fleet; returns what the fleet has said."""
    for name, value in sdk.info.environ().items():
        monkeypatch.setenv(name, value)
    source = tmp_path / "source"
    source.mkdir()

    def play(scene: Scene) -> list[str]:
        said: list[str] = []
        app = sdk.app()
        image = modal.Image.debian_slim().build(app)
        sandbox = SandboxSpec(("true",), image.object_id, Resources(), PATIENCE)
        settings = RunSettings(app_name="tests", mode="per_step", creation_rate=100.0)
        plan = RunPlan("local", "p", settings, sandbox)
        manifest = RunManifest("run", plan, "continue_on_failure", Source(Path("/s"), "h"))

        async def act() -> None:
            fleet = StepSandboxes(manifest, {}, source, said.append)
            await fleet.open()
            await scene(fleet)

        asyncio.run(asyncio.wait_for(act(), PATIENCE))
        return said

    return play


def fail(sdk: Sdk, *rules: dict[str, Any]) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(list(rules)))


async def create(fleet: StepSandboxes, *command: str, step: str = "a") -> StepSandbox:
    spec = SandboxSpec(
        command,
        fleet._plan.run_sandbox.image,
        Resources(),
        PATIENCE,
        name=f"modalrun-run-{step}-1",
        tags={TAG_RUN: "run", TAG_ROLE: "step", TAG_STEP: step, TAG_ATTEMPT: "1"},
    )
    return await fleet.create(spec, asyncio.Event())


@pytest.mark.parametrize(
    "status",
    ["UNIMPLEMENTED", "DATA_LOSS"],
)
def test_whatever_modal_says_to_a_wait_is_not_an_end(
    sdk: Sdk, play: Callable[[Scene], list[str]], status: str
) -> None:
    async def scene(fleet: StepSandboxes) -> None:
        member = await create(fleet, "sh", "-c", "exit 1")
        fail(sdk, {"rpc": "SandboxWait*", "action": "error", "status": status})
        assert (await member.ended()).kind is ExitKind.FAILED

    play(scene)


def test_a_creation_that_breaks_is_asked_for_again(
    sdk: Sdk, play: Callable[[Scene], list[str]]
) -> None:
    async def scene(fleet: StepSandboxes) -> None:
        fail(sdk, {"rpc": "SandboxCreate*", "action": "error", "status": "DATA_LOSS"})
        await (await create(fleet, "true")).ended()

    play(scene)


def test_a_sandbox_that_has_the_name_and_is_gone_when_it_is_looked_for(
    sdk: Sdk, play: Callable[[Scene], list[str]]
) -> None:
    async def scene(fleet: StepSandboxes) -> None:
        first = await create(fleet, "sleep", "60")
        fail(
            sdk,
            {"rpc": "SandboxGetFromName*", "action": "error", "status": "NOT_FOUND", "times": 4},
        )
        again = asyncio.create_task(create(fleet, "sleep", "60"))
        assert (await again).id == first.id
        await first.terminate()

    play(scene)


def test_one_that_ends_while_the_running_ones_are_listed(
    sdk: Sdk, play: Callable[[Scene], list[str]]
) -> None:
    async def scene(fleet: StepSandboxes) -> None:
        for step in ("a", "b"):
            await create(fleet, "sleep", "60", step=step)
        fail(sdk, {"rpc": "SandboxTagsGet*", "action": "error", "status": "NOT_FOUND"})
        assert len(await fleet.running()) == 1
        await fleet.terminate_all()
        assert await fleet.running() == []

    play(scene)


def test_many_are_waited_for_on_several_connections(
    sdk: Sdk, play: Callable[[Scene], list[str]]
) -> None:
    async def scene(fleet: StepSandboxes) -> None:
        count = SHARE + 2
        members = await asyncio.gather(
            *(create(fleet, "true", step=f"s{number}") for number in range(count))
        )
        ends = [asyncio.ensure_future(member.ended()) for member in members]
        lines = [sum(member._line is line for member in members) for line in fleet._lines]
        assert lines == [SHARE, 2]
        assert {end.kind for end in await asyncio.gather(*ends)} == {ExitKind.COMPLETED}
        assert [line.load for line in fleet._lines] == [0, 0]

    play(scene)


def test_another_connection_that_can_not_be_made_yet(
    sdk: Sdk, play: Callable[[Scene], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(fleet: StepSandboxes) -> None:
        await create(fleet, "true", step="other")
        fleet._lines[0].load = SHARE
        connect, answers = (
            modal_fleet._connect,
            iter([modal.exception.ConnectionError("no network")]),
        )

        async def connect_later() -> modal.Client:
            for error in answers:
                raise error
            return await connect()

        monkeypatch.setattr(modal_fleet, "_connect", connect_later)
        assert (await (await create(fleet, "true")).ended()).kind is ExitKind.COMPLETED

    assert any("no network" in text for text in play(scene))
