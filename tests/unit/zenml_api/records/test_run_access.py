"""Read whether a run may begin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modalrun.errors import ConnectionLostError, NoRunError
from modalrun.zenml_api.records import run_access
from tests.unit.zenml_api.records.test_updates import RUN


@pytest.mark.parametrize(
    ("status", "reason", "withdrawn"),
    [
        ("provisioning", None, False),
        ("running", None, False),
        ("completed", None, False),
        # By a step that was quicker than the driver.
        ("failed", None, False),
        ("failed", "The run sandbox was not created: the connection is lost.", True),
        ("stopping", None, True),
        ("stopped", "The submission was interrupted.", True),
    ],
)
def test_a_run_that_somebody_has_ended_is_withdrawn(
    monkeypatch: pytest.MonkeyPatch, status: str, reason: str | None, withdrawn: bool
) -> None:
    def get_run(*_: Any, **__: Any) -> Any:
        return replace(RUN, status=status, reason=reason)

    monkeypatch.setattr(run_access, "get_run", get_run)
    assert run_access.withdrawn("some-run") is withdrawn


@pytest.mark.parametrize(
    ("error", "deleted"),
    [(NoRunError("ZenML has no run some-run."), True), (ConnectionLostError("No."), False)],
)
def test_a_run_is_deleted_only_if_zenml_says_so(
    monkeypatch: pytest.MonkeyPatch, error: Exception, *, deleted: bool
) -> None:
    def get_run(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(run_access, "get_run", get_run)
    assert run_access.deleted("some-run") is deleted
