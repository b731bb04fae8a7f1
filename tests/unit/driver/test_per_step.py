"""Watch for a stop that was requested in ZenML, and say why a driver can't go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.driver import per_step
from modalrun.errors import AuthenticationError
from modalrun.run.contract import STOP_CLAUSE
from tests.unit.driver.supervisor_bench import Bench


class Watched:
    """Fake coordinator and recorder in one, with scripted answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.reasons: list[str] = []

    async def first_created(self, _: float) -> None:
        """At once."""

    async def call(self, _: Callable[[Any], Any]) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self, reason: str) -> None:
        self.reasons.append(reason)


def test_the_watch_for_a_stop_survives_errors_of_zenml(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(per_step, "STOP_CHECK_SECONDS", 0.0)
    refused = AuthenticationError("the key was rotated")
    # Asked whether it was stopped before it began, told that it runs, asked again and again.
    watched: Any = Watched(refused, refused, refused, RuntimeError("500"), False, True)

    asyncio.run(per_step._watch_for_stop(watched, watched))

    assert watched.reasons == [STOP_CLAUSE]
    said = capsys.readouterr().err
    assert said.count("the key was rotated") == 1
    assert said.count("500") == 1


class Withdrawn(Watched):
    """A run that its submission has given up."""

    async def call(self, question: Callable[[Any], Any]) -> Any:
        return question(SimpleNamespace(withdrawn=lambda: True))

    def give_up(self, reason: str) -> None:
        self.reasons.append(reason)


def test_a_driver_that_comes_late_ends_its_run() -> None:
    late: Any = Withdrawn()

    asyncio.run(per_step._watch_for_stop(late, late))

    assert late.reasons == ["the run was over before it began"]


class TakenOver(Watched):
    """A run that a driver takes over."""

    def __init__(self, *, stopping: bool) -> None:
        super().__init__({}, stopping)
        self.sandboxes = self
        self.listed = False

    async def running(self, names: Any = ()) -> list[Any]:
        # A slow answer.
        await asyncio.sleep(0)
        self.listed = True
        return []

    async def call(self, question: Callable[[Any], Any]) -> Any:
        # A step that ends between both answers has no sandbox, but a record.
        assert self.listed
        return await super().call(question)


@pytest.mark.parametrize("stopping", [True, False])
def test_a_takeover_keeps_a_requested_stop(stopping: bool) -> None:
    run: Any = TakenOver(stopping=stopping)
    manifest: Any = SimpleNamespace(run_id="run", plan=SimpleNamespace(steps=()))

    asyncio.run(per_step._take_over(manifest, run, run))

    assert run.reasons == ([STOP_CLAUSE] if stopping else [])


REFUSED = """
import sys
from modalrun.driver import dynamic, per_step
from modalrun.errors import AuthenticationError
from modalrun.run.contract import STOP_CLAUSE
from modalrun.run.manifest import RunManifest

def refuse(*_):
    raise AuthenticationError("Modal refuses the token.")

RunManifest.from_json = dynamic.SandboxClient = refuse
sys.argv[1:] = [__file__]
{driver}.main()
"""
"""A driver whose token was revoked."""


@pytest.mark.parametrize("driver", ["per_step", "dynamic"])
def test_the_run_of_a_driver_that_modal_refuses_has_that_reason(
    tmp_path: Path, driver: str
) -> None:
    bench = Bench(tmp_path)

    bench.run(REFUSED.format(driver=driver))

    assert bench.finalized() == "some-run: Modal refuses the token."
