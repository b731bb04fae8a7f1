"""Find the run sandbox of a run, and its state."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from modalrun.errors import NotFoundError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.sandboxes import run_sandboxes
from modalrun.run.metadata import Announced, RunMetadata
from tests.unit.fakes import RUN_ID, FakeConnection

ANNOUNCED = Announced("modal", "pipeline", "app")
FOUND = RunMetadata("modal", "pipeline", "app", "ap-1", "sb-1")


@pytest.mark.parametrize(
    ("code", "place", "found"),
    [(None, False, FOUND), (None, True, FOUND), (137, True, FOUND), (137, False, None)],
)
def test_a_sandbox_that_ended_without_a_place_is_not_the_runs(
    monkeypatch: pytest.MonkeyPatch, *, code: int | None, place: bool, found: RunMetadata | None
) -> None:
    sandbox = SimpleNamespace(object_id="sb-1", returncode=code)
    monkeypatch.setattr(run_sandboxes, "_find_last", lambda *_: sandbox)
    monkeypatch.setattr(run_sandboxes, "has_place", lambda _: place)
    monkeypatch.setattr(run_sandboxes, "app_id", lambda *_: "ap-1")
    assert run_sandboxes.find_announced(FakeConnection(), RUN_ID, ANNOUNCED) == found


def test_a_secret_that_there_is_not_is_no_sandbox_that_there_is_not() -> None:
    def connect() -> Connection:
        raise NotFoundError("ZenML has no secret 'modal'.")

    state = run_sandboxes.sandbox_state(RUN_ID, FOUND, connect)
    assert (state.problem, state.not_found) == ("ZenML has no secret 'modal'.", False)
    elsewhere = run_sandboxes.sandbox_state(RUN_ID, FOUND, FakeConnection)
    assert elsewhere.not_found and "knows no sandbox sb-1" in str(elsewhere.problem)
