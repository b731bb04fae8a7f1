"""Record the end of a dead process."""

import contextlib
import io
import sys

import pytest

from modalrun.driver import finalize
from modalrun.errors import ConnectionLostError
from modalrun.zenml_api import process, retry
from modalrun.zenml_api.records import step_records, updates


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "zenml_server", lambda folder: contextlib.nullcontext(False))


@pytest.fixture(autouse=True)
def _no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "open_store", lambda *, in_sandbox: None)
    monkeypatch.setenv("MODALRUN_ENDED", "12.5")


def test_records_the_end_of_a_step_in_its_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        step_records,
        "fail_step",
        lambda *arguments, attempt, **more: calls.append((*arguments, attempt, more)),
    )
    monkeypatch.setenv("MODALRUN_ATTEMPT", "2")
    monkeypatch.setenv("MODALRUN_RUN_ID", "some-run")
    monkeypatch.setenv("MODALRUN_STEP", "train")
    monkeypatch.setattr(sys, "argv", ["finalize", "It died."])
    monkeypatch.setattr(sys, "stdin", io.StringIO("its\nlast words"))
    assert finalize.main() == 0
    told = {"lines": ["its", "last words"], "ended": 12.5}
    assert calls == [("some-run", "train", "It died.", 2, told)]


def test_says_in_two_lines_that_the_end_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise ValueError("database or disk is full")

    monkeypatch.setattr(updates, "finalize_run", full)
    monkeypatch.setenv("MODALRUN_RUN_ID", "some-run")
    monkeypatch.delenv("MODALRUN_STEP", raising=False)
    monkeypatch.setattr(sys, "argv", ["finalize", "It died."])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert finalize.main() == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "The end is not recorded in ZenML: database or disk is full"
    assert "modalrun reconcile some-run" in said[1]


def test_records_the_end_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        updates, "finalize_run", lambda *arguments, **more: calls.append((*arguments, more))
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("its\nlast words"))
    monkeypatch.setenv("MODALRUN_RUN_ID", "some-run")
    monkeypatch.setattr(sys, "argv", ["finalize", "The runner died of SIGSEGV."])
    assert finalize.main() == 0
    told = {"lines": ["its", "last words"], "ended": 12.5}
    assert calls == [("some-run", "The runner died of SIGSEGV.", told)]


@pytest.mark.parametrize("trouble", [False, True])
def test_a_server_is_asked_without_zenml_and_else_waited_for(
    monkeypatch: pytest.MonkeyPatch, trouble: bool
) -> None:
    calls: list[str] = []

    def record(*_: object, **__: object) -> None:
        calls.append("record")
        if trouble and len(calls) == 1:
            raise ConnectionLostError("It is away.")

    monkeypatch.setattr(process, "zenml_server", lambda folder: contextlib.nullcontext(True))
    monkeypatch.setattr(retry, "open_store", lambda *, in_sandbox: calls.append("open"))
    monkeypatch.setattr(updates, "finalize_run", record)
    monkeypatch.setenv("MODALRUN_RUN_ID", "some-run")
    monkeypatch.setattr(sys, "argv", ["finalize", "It died."])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert finalize.main() == 0
    assert calls == (["record", "open", "record"] if trouble else ["record"])
