"""Call ZenML while its server has errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import sqlalchemy.exc
from zenml.exceptions import IllegalOperationError

from modalrun.driver import recorder
from modalrun.driver.recorder import AsyncRecorder
from modalrun.errors import AuthenticationError, ConnectionLostError, MachineError, ServerError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(recorder, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(AsyncRecorder, "_loaded", lambda self: None)
    yield []


def ask(said: list[str], *raised: Exception, then: str = "done") -> tuple[str, int]:
    """Call a function that raises these errors one after the other, and then returns."""
    left, asked = list(raised), 0

    def question(_: Any) -> str:
        nonlocal asked
        asked += 1
        if left:
            raise left.pop(0)
        return then

    return asyncio.run(AsyncRecorder("run", said.append).call(question)), asked


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database or disk is full")),
        requests.ReadTimeout("no answer"),
        requests.exceptions.RetryError("too many 503 error responses"),
    ],
)
def test_a_server_error_is_retried(said: list[str], error: Exception) -> None:
    assert ask(said, error, error) == ("done", 3)
    assert str(error) in said[0]


def test_an_unreachable_server_is_retried_without_limit(said: list[str]) -> None:
    away = ConnectionLostError("The ZenML server can't be reached")
    assert ask(said, *[away] * (recorder.TROUBLED_TRIES * 3))[0] == "done"


def test_a_lasting_server_error_is_raised(said: list[str]) -> None:
    with pytest.raises(OSError, match="for good"):
        ask(said, *[OSError("for good")] * 100)


def test_a_database_that_stays_full_is_no_bug(said: list[str]) -> None:
    full = sqlalchemy.exc.OperationalError("UPDATE", {}, Exception("database or disk is full"))
    with pytest.raises(MachineError, match=r"database .*can't be used: database or disk is full"):
        ask(said, *[full] * 100)


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
