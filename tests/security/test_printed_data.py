"""Names, errors and log lines that try to command a CI job or a terminal when they are printed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
import typer

from modalrun import cli, errors
from modalrun.flavor import runs
from modalrun.output import local_text
from modalrun.output.terminal.writer import guarded

EVIL = "x\n::error::owned\n##[add-mask]x ##vso[task.x] ##teamcity[y]\r::warning::z"
EVIL += "\x1b[2J\u202e\u200b\x1b[8m"


@pytest.fixture(params=["true", None], ids=["github", "elsewhere"], autouse=True)
def _job(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each attack with and without what GitHub's own runner sets."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    if request.param:
        monkeypatch.setenv("GITHUB_ACTIONS", request.param)


def assert_harmless(text: str) -> None:
    assert "owned" in text or "x" in text
    assert not set(text) & set("\x1b\r\u202e\u200b")
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert not any(sign in text for sign in ("##[", "##vso[", "##teamcity["))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Let every command end with the exception in this list."""
    raised: list[BaseException] = []

    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise raised[0]

    monkeypatch.setattr(cli, "app", app)
    yield raised


@pytest.mark.parametrize("debug", ["1", ""])
@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError(EVIL, effect=EVIL, hint=EVIL),
        errors.RunFailedError(EVIL),
        RuntimeError(EVIL),
        OSError(28, EVIL, EVIL),
        ImportError(EVIL, name=EVIL, path=EVIL),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_and_tracebacks(
    error: BaseException,
    debug: str,
    failing: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(cli.DEBUG, debug)
    failing.append(error)
    assert cli.run([]) in {1, 2, 8, 70}
    shown = capsys.readouterr()
    assert_harmless(shown.out + shown.err)
    assert ("Traceback" in shown.err) == bool(debug)


@pytest.mark.parametrize("arguments", [["status", f"--{EVIL}"], [EVIL], ["list", "--state", EVIL]])
def test_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    assert_harmless(capsys.readouterr().err)


def test_what_libraries_log_and_print(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("zenml.test")
    with guarded():
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.warning("The server says: %s", EVIL)
        print(EVIL)
        print("#", end="")
        print("#[group]", end="")
        print("\n:", end="")
        print(":error::split")
    shown = capsys.readouterr()
    assert_harmless(shown.err)
    assert_harmless(shown.out)


def test_errors_of_the_flavor() -> None:
    with pytest.raises(errors.RunFailedError) as raised, runs._readable_errors():
        raise errors.RunFailedError(EVIL, hint=EVIL)
    assert_harmless(str(raised.value))


def test_a_name_adds_no_line_to_the_status_of_the_local_server() -> None:
    sandbox = {
        "id": "sb-1", "app": EVIL, "name": EVIL, "created_at": 0.0, "scheduled": True,
        "requested": {"cpu": 1.0, "memory_mib": 1, "gpu": EVIL, "regions": [EVIL], "cloud": EVIL},
    }  # fmt: skip
    status = {
        "url": "http://127.0.0.1:1", "pid": 1, "version": EVIL, "state_dir": EVIL, "apps": 1,
        "lenient": False, "isolated_python": False, "python": EVIL,
        "catalog": EVIL, "isolation": {"works": False, "problem": EVIL},
        "uptime_seconds": 1, "idle_timeout_seconds": 0, "sandboxes": 1, "running": [sandbox],
        "preload": {"state": "failed", "problem": EVIL},
    }  # fmt: skip
    lines = list(local_text.status_lines(status))
    assert "\n" not in "".join(lines).removeprefix("\n").replace("\nRunning", "")
