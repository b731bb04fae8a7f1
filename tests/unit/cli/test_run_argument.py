"""Mistakes on the command line of `status`, `list` and `reconcile`, found before ZenML is asked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from modalrun.cli import exec as exec_command
from modalrun.cli import resume as resume_command
from modalrun.cli import run
from modalrun.control import resume as control_resume
from modalrun.observe import outcome, status
from modalrun.zenml_api import process


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status"], "RUN is missing"),
        (["status", " "], "RUN is missing"),
        (["reconcile"], "RUN is missing"),
        (["list", "--state", "broken"], "there is no such state"),
        (["list", "--since", "yesterday"], "this is not a time"),
        (["list", "--limit", "0"], "--limit"),
        (["status", "latest", "--output", "yaml"], "--output"),
        (["status", "\udcff"], "RUN is not UTF-8 text: \\udcff"),
        (["list", "--pipeline", "\udcff"], "--pipeline is not UTF-8"),
        (["exec", "latest", "--", "\udcff"], "COMMAND is not UTF-8"),
        (["advise", "latest", "--write", "--output", "json"], "--write and '--output json'"),
    ],
)
def test_a_mistake_is_found_without_zenml(arguments: list[str], says: str) -> None:
    code = (
        "import sys; from modalrun.cli import run; code = run(sys.argv[1:]);"
        "sys.exit(99 if {'zenml', 'modal'} & sys.modules.keys() else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_the_help_of_stop_says_what_it_does_without_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command, said in (
        ("stop", "elsewhere if it is yours."),
        ("status", "On a terminal, 'late"),
    ):
        assert run([command, "--help"]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert [said in told, "On a terminal, 'latest' is" in told] == [True, command != "stop"]


def test_an_interruption_while_exec_reads_the_run_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.contextmanager
    def interrupted(_: str | None) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(exec_command, "resolved", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exec_command.exec_("latest", ["true"], step=None)
    assert capsys.readouterr().err == "Interrupted. The command was not run.\n"


def test_fish_is_told_by_the_exit_code_whether_there_is_anything_to_offer(tmp_path: Path) -> None:
    asked = {
        "_MODALRUN_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "is-args",
        "ZENML_CONFIG_PATH": str(tmp_path),
    }
    program = [sys.executable, "-c", "from modalrun.__main__ import main; main()"]
    for typed, exit_code in (("modalrun status l", 0), ("modalrun no-such-command x", 1)):
        environment = os.environ | asked | {"_TYPER_COMPLETE_ARGS": typed}
        assert subprocess.run(program, env=environment, check=False).returncode == exit_code


def test_an_interruption_while_an_accepted_resume_is_recorded_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "zenml_session", contextlib.nullcontext)
    monkeypatch.setattr(status, "resolve", lambda _: SimpleNamespace(id="some-run"))
    monkeypatch.setattr(control_resume, "resume", lambda *_, **__: SimpleNamespace())
    monkeypatch.setattr(outcome, "accepted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resume_command.resume("some-run", sync=False)
    assert "This ends the command, not the run." in capsys.readouterr().err
