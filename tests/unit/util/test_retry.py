"""A call that is repeated while a connection is lost."""

from __future__ import annotations

import itertools

import pytest

from modalrun.errors import AuthenticationError, ConnectionLostError
from modalrun.util import retry

LOST = ConnectionLostError("The server can't be reached.", effect="Nothing was created.")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    monkeypatch.setattr(retry.time, "monotonic", lambda: sum(found))
    return found


def test_it_goes_on_after_an_outage_of_40_seconds(slept: list[float]) -> None:
    said: list[str] = []

    def call() -> str:
        if sum(slept) < 40:
            raise LOST
        return "done"

    assert retry.while_connection_lost(call, said.append) == "done"
    assert said == ["The server can't be reached. Trying again for up to 60 s."]


def test_it_gives_up_after_a_minute_and_passes_other_errors_on(slept: list[float]) -> None:
    def lost() -> None:
        raise LOST

    with pytest.raises(ConnectionLostError):
        retry.while_connection_lost(lost, lambda _: None)
    assert 60 < sum(slept) < 70
    attempts = itertools.count()

    def refused() -> None:
        next(attempts)
        raise AuthenticationError("The token is revoked.")

    with pytest.raises(AuthenticationError):
        retry.while_connection_lost(refused, lambda _: None)
    assert next(attempts) == 1
