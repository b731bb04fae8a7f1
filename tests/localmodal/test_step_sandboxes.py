"""The step sandboxes of a run, on a server with injected faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal
import pytest

from modalrun.localmodal.storage.paths import StateDir
from modalrun.modal_api.sandboxes.connection_pool import (
    SANDBOXES_PER_CONNECTION,
    ConnectionPool,
    connect,
)
from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox
from modalrun.modal_api.sandboxes.step_sandboxes import StepSandboxes, create_ahead
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import RunPlan, RunSettings
from modalrun.run.sandbox_exit import ExitKind
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.tags import TAG_ATTEMPT, TAG_ORDER, TAG_ROLE, TAG_RUN, TAG_STEP

from .support import PATIENCE, Sdk


@dataclass
class Driver:
    """What a driver has: step sandboxes on a pool of connections.

    Attributes:
        image: Modal's id of the image of every sandbox.
        connect_errors: Raised one by one instead of making a connection.
    """

    sandboxes: StepSandboxes
    pool: ConnectionPool
    image: str
    connect_errors: list[Exception]

    def spec(self, *command: str, step: str = "a", **tags: str) -> SandboxSpec:
        return SandboxSpec(
            command,
            self.image,
            Resources(),
            PATIENCE,
            name=f"modalrun-run-{step}-1",
            tags={TAG_RUN: "run", TAG_ROLE: "step", TAG_STEP: step, TAG_ATTEMPT: "1", **tags},
        )

    async def create(self, *command: str, step: str = "a") -> StepSandbox:
        return await self.sandboxes.create(self.spec(*command, step=step), asyncio.Event())


Scenario = Callable[[Driver], Awaitable[None]]
Play = Callable[[Scenario], list[str]]


@pytest.fixture
def play(sdk: Sdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run a scenario with a driver's step sandboxes; returns the messages that were logged."""
    for name, value in sdk.info.environ().items():
        monkeypatch.setenv(name, value)
    source = tmp_path / "source"
    source.mkdir()

    def play(scenario: Scenario) -> list[str]:
        logged: list[str] = []
        errors: list[Exception] = []
        image = modal.Image.debian_slim().build(sdk.app()).object_id
        sandbox = SandboxSpec(("true",), image, Resources(), PATIENCE)
        settings = RunSettings(app_name="tests", mode="per_step", creation_rate=100.0)
        plan = RunPlan("local", "p", settings, sandbox)
        manifest = RunManifest("run", plan, "continue_on_failure")

        async def connect_or_fail() -> modal.Client:
            if errors:
                raise errors.pop()
            return await connect()

        async def run() -> None:
            pool = ConnectionPool(logged.append, connect_or_fail)
            sandboxes = StepSandboxes(manifest, source, logged.append, pool)
            await sandboxes.open()
            await scenario(Driver(sandboxes, pool, image, errors))

        asyncio.run(asyncio.wait_for(run(), PATIENCE))
        return logged

    return play


def fail(sdk: Sdk, *rules: dict[str, Any]) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps(list(rules)))


@pytest.mark.parametrize(
    "status",
    ["UNIMPLEMENTED", "DATA_LOSS"],
)
def test_an_error_of_a_wait_is_not_an_end(sdk: Sdk, play: Play, status: str) -> None:
    async def scenario(driver: Driver) -> None:
        sandbox = await driver.create("sh", "-c", "exit 1")
        fail(sdk, {"rpc": "SandboxWait*", "action": "error", "status": status})
        assert (await sandbox.ended()).kind is ExitKind.FAILED

    play(scenario)


def test_a_creation_that_breaks_is_repeated(sdk: Sdk, play: Play) -> None:
    async def scenario(driver: Driver) -> None:
        fail(sdk, {"rpc": "SandboxCreate*", "action": "error", "status": "DATA_LOSS"})
        await (await driver.create("true")).ended()

    play(scenario)


def test_a_sandbox_that_has_the_name_and_is_gone_when_it_is_looked_for(
    sdk: Sdk, play: Play
) -> None:
    async def scenario(driver: Driver) -> None:
        first = await driver.create("sleep", "60")
        fail(
            sdk,
            {"rpc": "SandboxGetFromName*", "action": "error", "status": "NOT_FOUND", "times": 4},
        )
        again = asyncio.create_task(driver.create("sleep", "60"))
        assert (await again).id == first.id
        await first.terminate()

    play(scenario)


def test_one_that_ends_while_the_running_ones_are_listed(sdk: Sdk, play: Play) -> None:
    async def scenario(driver: Driver) -> None:
        for step in ("a", "b"):
            await driver.create("sleep", "60", step=step)
        fail(sdk, {"rpc": "SandboxTagsGet*", "action": "error", "status": "NOT_FOUND"})
        (sandbox,) = await driver.sandboxes.running()
        assert sandbox.step in {"a", "b"} and sandbox.attempt == 1
        assert sandbox.record == ""
        await driver.sandboxes.terminate_all()
        assert await driver.sandboxes.running() == []

    play(scenario)


def test_the_submission_creates_what_a_driver_finds_running_or_ended(
    sdk: Sdk, play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that it tries to create itself: the tags are those of the one that there is."""
    monkeypatch.setattr("modalrun.modal_api.sandboxes.step_sandboxes.AHEAD_SECONDS", PATIENCE)
    connection: Any = SimpleNamespace(
        app=lambda *_: sdk.app(), client=sdk.client, mounts_package=False, mounted={}
    )

    async def scenario(driver: Driver) -> None:
        plan = RunPlan(
            "local",
            "p",
            RunSettings(app_name="tests", mode="per_step"),
            driver.spec("true"),
        )
        specs = [
            driver.spec("sleep", "600", step=step, **{TAG_ORDER: f"order-{step}"}) for step in "ab"
        ]
        source = tmp_path / "source"
        await asyncio.to_thread(create_ahead, connection, plan, specs, {}, source)
        found = await driver.sandboxes.named(str(specs[0].name))
        assert found is not None
        assert (found.step, found.tags[TAG_ORDER]) == ("a", "order-a")
        again = await driver.create("sleep", "600")
        assert (again.id, again.tags[TAG_ORDER]) == (found.id, "order-a")
        await found.terminate()
        assert (await found.ended()).kind is ExitKind.TERMINATED
        ended = await driver.sandboxes.named(str(specs[0].name))
        assert ended is not None
        assert (ended.id, ended.tags[TAG_ORDER]) == (found.id, "order-a")
        assert (await ended.ended()).kind is ExitKind.TERMINATED
        assert await driver.sandboxes.named("another") is None
        await driver.sandboxes.terminate_all()

    play(scenario)


def test_a_sandbox_that_comes_late_is_terminated(play: Play) -> None:
    async def scenario(driver: Driver) -> None:
        looking = asyncio.create_task(driver.sandboxes.end_late("modalrun-run-a-1"))
        late = await driver.create("sleep", "600")
        assert (await late.ended()).kind is ExitKind.TERMINATED
        await looking

    play(scenario)


def test_many_are_awaited_on_several_connections(play: Play) -> None:
    async def scenario(driver: Driver) -> None:
        count = SANDBOXES_PER_CONNECTION + 2
        sandboxes = await asyncio.gather(
            *(driver.create("true", step=f"s{number}") for number in range(count))
        )
        loads = [connection.load for connection in driver.pool.connections]
        assert loads == [SANDBOXES_PER_CONNECTION, 2]
        ends = await asyncio.gather(*(sandbox.ended() for sandbox in sandboxes))
        assert {end.kind for end in ends} == {ExitKind.COMPLETED}
        assert [connection.load for connection in driver.pool.connections] == [0, 0]

    play(scenario)


def test_another_connection_that_can_not_be_made_yet(play: Play) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.create("true", step="other")
        driver.pool.connections[0].load = SANDBOXES_PER_CONNECTION
        driver.connect_errors.append(modal.exception.ConnectionError("no network"))
        assert (await (await driver.create("true")).ended()).kind is ExitKind.COMPLETED

    assert any("no network" in text for text in play(scenario))
