"""Find the run sandbox whose creation was not answered."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

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
