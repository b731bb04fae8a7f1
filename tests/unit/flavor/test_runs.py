"""What is checked of a script that a registered stack runs."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.utils import source_utils

from modalrun.errors import (
    AuthenticationError,
    Interrupted,
    ModalrunError,
    NotFoundError,
    RunFailedError,
    UsageError,
)
from modalrun.flavor import runs
from modalrun.run.metadata import RunMetadata, to_metadata
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import RUN_ID, Effects


def test_a_script_in_the_home_folder_is_told_what_zenml_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(source_utils, "get_source_root", lambda: str(tmp_path))

    with pytest.raises(UsageError, match="is your home folder") as caught:
        runs._source_root(run_with({}))

    # A script has neither a run spec nor an option.
    assert "the script" in (caught.value.hint or "")
    assert "--source-root" not in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (AuthenticationError("No token.", hint="Run 'modal setup'."), AuthenticationError),
        (NotFoundError("No token.", effect="Nothing was created.", hint="Name it."), NotFoundError),
        # 2 would say that there is no run.
        (UsageError("No token.", effect="Nothing was created.", hint="Name it."), RunFailedError),
    ],
)
def test_why_a_run_got_no_sandbox_is_recorded(
    monkeypatch: pytest.MonkeyPatch, error: ModalrunError, raised: type[ModalrunError]
) -> None:
    zenml = FakeZenML(Effects(), "initializing")
    monkeypatch.setattr(runs, "ZENML", zenml)

    with pytest.raises(raised) as caught, runs._failure_recorded(run_with({})):
        raise error

    assert caught.value.message == f"No token. The run {RUN_ID} is recorded as failed."
    assert caught.value.hint == error.hint
    assert zenml.reasons == ["The run sandbox was not created: No token."]
    assert zenml.metadata["modalrun_exit_code"] == raised.exit_code


def test_the_record_of_a_run_that_is_resumed_is_left_to_zenml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zenml = FakeZenML(Effects(), "initializing")
    monkeypatch.setattr(runs, "ZENML", zenml)
    before = to_metadata(RunMetadata("local", "pipeline", "an-app", "ap-1", "sb-1"))

    with pytest.raises(UsageError), runs._failure_recorded(run_with(before)):
        raise UsageError("No token.")

    assert zenml.reasons == []


def run_with(metadata: dict[str, Any]) -> Any:
    return SimpleNamespace(id=RUN_ID, run_metadata=metadata)


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)]
)
def test_a_script_that_detaches_ends_without_a_traceback(error: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as ended, runs._script_ended():
        raise error
    assert (ended.value.code, ended.value.__cause__) == (code, None)


def test_a_notebook_that_detaches_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    with pytest.raises(KeyboardInterrupt), runs._script_ended():
        raise KeyboardInterrupt
