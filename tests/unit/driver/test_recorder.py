"""Call ZenML while its server has errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
import sqlalchemy.exc
from zenml.exceptions import IllegalOperationError

from modalrun.driver.graph import recorder
from modalrun.driver.graph.recorder import AsyncRecorder
from modalrun.errors import AuthenticationError, ConnectionLostError, MachineError, ServerError
from modalrun.zenml_api import retry

FULL = sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database or disk is full"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(recorder, "FIRST_PAUSE", 0.0)
    yield []


def ask(said: list[str], *raised: Exception, then: str = "done") -> tuple[str, int]:
    """Call a function that raises these errors one after the other, and then returns."""
    left, asked = list(raised), 0
    made = AsyncRecorder("run", said.append)
    # The run is loaded.
    made._recorder = cast("Any", object())

    def question(_: Any) -> str:
        nonlocal asked
        asked += 1
        if left:
            raise left.pop(0)
        return then

    return asyncio.run(made.call(question)), asked


def test_a_full_disk_is_waited_for(
    said: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(said, FULL) == ("done", 2)
    assert "ZenML's database can't be written: database or disk is full" in capfd.readouterr().err
    monkeypatch.setattr(retry, "DATABASE_PATIENCE", 0)
    with pytest.raises(MachineError, match=r"database .*can't be used: database or disk is full"):
        ask(said, *[FULL] * 100)
    assert said == []


def test_an_unreachable_server_is_retried_without_limit(said: list[str]) -> None:
    away = ConnectionLostError("The ZenML server can't be reached")
    assert ask(said, *[away] * 30) == ("done", 31)
    assert said == ["The ZenML server can't be reached; trying again"] * 30


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("revoked"),
        IllegalOperationError("no"),
        KeyError("ours"),
        # Its requests were repeated for minutes.
        ServerError("status 500"),
    ],
)
def test_a_refusal_is_not_retried(said: list[str], error: Exception) -> None:
    with pytest.raises(type(error)):
        ask(said, error)
    assert said == []
