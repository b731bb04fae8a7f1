"""What is written to a terminal, and to anything else."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from modalrun.cli.options import confirmed
from modalrun.output.terminal import writer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["stdout", "stderr"])
def stream(request: pytest.FixtureRequest) -> str:
    return str(request.param)


WRITE: dict[str, Callable[[str], None]] = {
    "stdout": lambda text: writer.out(text, fit=True),
    "stderr": writer.err,
}


def test_a_text_is_broken_between_words_on_a_terminal_alone(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal, pipe = Terminal(), io.StringIO()
    for target in (terminal, pipe):
        monkeypatch.setattr("sys." + stream, target)
        WRITE[stream]("a sentence that is longer")
    assert terminal.getvalue() == "a sentence that is\n  longer\n"
    assert pipe.getvalue() == "a sentence that is longer\n"


def test_what_is_copied_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    writer.out("export NAME='a value that is longer'")
    assert terminal.getvalue() == "export NAME='a value that is longer'\n"


@pytest.mark.parametrize(("answer", "meant"), [("y", True), ("", False)])
def test_a_question_is_broken_between_words(
    answer: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert confirmed("Stop the run of the pipeline training?") is meant
    assert terminal.getvalue().startswith("Stop the run of the pipeline\n  training? [y/N]:")
