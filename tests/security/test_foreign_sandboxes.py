"""A sandbox that output names is read only if its tags at Modal carry the run's id."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.modal_api import sandbox_handles
from modalrun.modal_api.client import Connection, ForeignSandboxError, require_owner
from modalrun.modal_api.commands import run_command
from modalrun.modal_api.sandbox_handles import SandboxHandles
from modalrun.modal_api.sandboxes.termination import SandboxGroup
from modalrun.observe.log_stream import LogStream
from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.log_lines import LogLine
from modalrun.run.tags import TAG_PIPELINE, TAG_RUN
from tests.unit.fakes import RUN_ID, FakeConnection, FakeStreams

FOREIGN = [{}, {TAG_RUN: ""}, {TAG_RUN: RUN_ID[:-1]}, {TAG_RUN: "other"}, {TAG_PIPELINE: RUN_ID}]


@pytest.mark.parametrize("tags", FOREIGN)
def test_only_the_run_tag_proves_whose_a_sandbox_is(tags: dict[str, str]) -> None:
    with pytest.raises(ForeignSandboxError, match=f"sb-1 does not belong to the run {RUN_ID}"):
        require_owner("sb-1", tags, RUN_ID)
    require_owner("sb-1", {**tags, TAG_RUN: RUN_ID}, RUN_ID)


def test_no_output_is_read_before_the_tags_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def sandbox_from_id(sandbox: str, client: Any) -> Any:
        async def get_tags() -> dict[str, str]:
            asked.append(sandbox)
            return {TAG_RUN: RUN_ID if sandbox == "sb-own" else "other"}

        return SimpleNamespace(object_id=sandbox, get_tags=get_tags)

    async def client(self: SandboxHandles, number: int) -> Any:
        return None

    monkeypatch.setattr(sandbox_handles, "sandbox_from_id", sandbox_from_id)
    monkeypatch.setattr(SandboxHandles, "_client", client)

    async def look() -> None:
        handles = SandboxHandles(FakeConnection(), RUN_ID)
        assert (await handles.get("sb-own")).object_id == "sb-own"
        await handles.get("sb-own")
        for _ in range(2):
            with pytest.raises(ForeignSandboxError):
                await handles.get("sb-other")

    asyncio.run(look())
    assert asked == ["sb-own", "sb-other", "sb-other"]


def test_a_note_stands_for_the_output_of_another_run() -> None:
    streams = FakeStreams()
    event = StepEvent("train", "running", 10.0, sandbox="sb-other")
    streams.feed("sb-run", events.line(event) + "own\n")
    streams.end("sb-other", ForeignSandboxError("The sandbox sb-other does not belong."))
    streams.end("sb-run")
    stream = LogStream(streams, "sb-run")
    lines = [item.text for batch in stream for item in batch if isinstance(item, LogLine)]
    assert sorted(lines) == [
        "[modalrun: The sandbox sb-other does not belong. Its output is not shown.]",
        "own",
    ]
    assert stream.errors == []


def test_the_sandbox_of_another_run_gets_no_stop_request() -> None:
    class Elsewhere(FakeConnection):
        def attach(self, sandbox_id: str, run_id: str) -> Any:
            require_owner(sandbox_id, {TAG_RUN: "other"}, run_id)

    class Listed(SandboxGroup):
        def running(self, role: str | None = None) -> list[Any]:
            return [SimpleNamespace(object_id="sb-other")]

    assert not Listed(Elsewhere(), RUN_ID, "ap-1").request_stop()


def test_no_command_runs_in_a_sandbox_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = SimpleNamespace(get_tags=lambda: {TAG_RUN: "other"})
    monkeypatch.setattr("modal.Sandbox.from_id", lambda *_, **__: foreign)
    connection = Connection.__new__(Connection)
    connection.client = SimpleNamespace()  # type: ignore[assignment]
    with pytest.raises(ForeignSandboxError):
        run_command(
            connection,
            "sb-1",
            RUN_ID,
            [],
            lambda *_: None,
            environment={},
            without=(),
            stdin=0,
            terminal=False,
        )
