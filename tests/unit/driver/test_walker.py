"""The driver's watch for a stop that ZenML was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from modalrun.driver import walker
from modalrun.errors import AuthenticationError


class Watched:
    """What the watch asks, and what it does then."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.reasons: list[str] = []

    async def first_created(self, _: float) -> None:
        """At once."""

    async def ask(self, _: Callable[[Any], Any]) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self, reason: str) -> None:
        self.reasons.append(reason)


def test_the_watch_outlives_what_zenml_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(walker, "STOP_CHECK_SECONDS", 0.0)
    refused = AuthenticationError("the key was rotated")
    # Asked whether it was stopped before it began, told that it runs, asked again and again.
    watched: Any = Watched(refused, refused, refused, RuntimeError("500"), False, True)

    asyncio.run(walker._watch_for_stop(watched, watched))

    assert watched.reasons == ["ZenML was asked to stop the run"]
    said = capsys.readouterr().err
    assert said.count("the key was rotated") == 1
    assert said.count("500") == 1
