"""What the processes that run steps share."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modalrun.driver.processes.process import print_traceback


def test_traceback_begins_in_the_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZENML_CUSTOM_SOURCE_ROOT", str(tmp_path))
    path = tmp_path / "their_step.py"
    path.write_text("def step():\n    raise ValueError('theirs')\n", encoding="utf-8")
    space: dict[str, object] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    try:
        space["step"]()  # type: ignore[operator]
    except ValueError as error:
        print_traceback(error)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.splitlines()[1].startswith(f'  File "{path}", line 2')
    assert "test_process.py" not in shown
    assert shown.endswith("ValueError: theirs\n")


ZENML = "/usr/lib/python3/site-packages/zenml/client.py"
OURS = "/opt/modalrun/modalrun/zenml_api/execution/dynamic.py"


@pytest.mark.parametrize(
    ("chain", "shown"),
    [
        (["pipe.py", ZENML, OURS, "/lib/decorators.py", "steps.py", ZENML], [0, 3, 4, 5]),
        (["pipe.py", ZENML, OURS, ZENML], [0]),
    ],
    ids=["a step here", "a step in another sandbox"],
)
def test_traceback_leaves_out_what_calls_a_step_of_a_dynamic_pipeline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chain: list[str],
    shown: list[int],
) -> None:
    monkeypatch.setenv("ZENML_CUSTOM_SOURCE_ROOT", str(tmp_path))
    paths = [str(tmp_path / path) for path in chain]
    call: Any = dict
    for path in reversed(paths):
        space = {"call": call}
        exec(compile("def again(_):\n    call(1)\n", path, "exec"), space)
        call = space["again"]
    try:
        call(1)
    except TypeError as error:
        print_traceback(error)
    lines = capsys.readouterr().err.splitlines()
    files = [line.split('"')[1] for line in lines if line.startswith("  File")]
    # The test's own line is before the user's first.
    assert files == [paths[n] for n in shown]


def test_traceback_of_a_step_that_the_engine_raises_later_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZENML_CUSTOM_SOURCE_ROOT", str(tmp_path))

    def called(path: str, inner: Callable[[], object]) -> Callable[[], object]:
        space: dict[str, Any] = {"inner": inner}
        exec(compile("def call():\n    inner()\n", path, "exec"), space)
        return space["call"]  # type: ignore[no-any-return]

    engine = "/usr/lib/python3/site-packages/zenml/runner.py"
    step = called(engine, called(f"{tmp_path}/steps.py", lambda: {}["theirs"]))

    def settle() -> None:
        try:
            step()
        except KeyError as error:
            raise RuntimeError("A step failed.") from error

    try:
        called(engine, called("/usr/lib/python3/futures.py", settle))()
    except RuntimeError as error:
        print_traceback(error)
    lines = capsys.readouterr().err.splitlines()
    files = [line.split('"')[1] for line in lines if line.startswith("  File")]
    # Beside the lines of this test.
    assert [file for file in files if file != __file__] == [
        f"{tmp_path}/steps.py",
        "/usr/lib/python3/futures.py",
    ]
    assert lines[-1] == "RuntimeError: A step failed."


def test_traceback_without_the_users_code_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZENML_CUSTOM_SOURCE_ROOT", str(tmp_path))
    try:
        raise KeyError("elsewhere")
    except KeyError as error:
        print_traceback(error)
    assert "test_process.py" in capsys.readouterr().err


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def _without_descriptor() -> io.TextIOBase:
    descriptor = os.dup(2)
    stream = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", closefd=False)
    os.close(descriptor)
    return stream


# Since Python 3.13 such a file can't even be deleted in silence.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("spoiled", [_closed, _without_descriptor, lambda: None])
def test_traceback_is_shown_although_the_step_has_spoiled_stderr(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoiled: Callable[[], object],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", spoiled())

        print_traceback(ValueError("theirs"))

    assert capfd.readouterr().err == "ValueError: theirs\n"


def test_traceback_is_shown_although_the_step_has_deleted_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    print_traceback(ValueError("theirs"))

    assert capsys.readouterr().err == "ValueError: theirs\n"
