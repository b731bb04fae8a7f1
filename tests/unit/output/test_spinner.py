"""The line that names what a command waits for."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

CODE = """
import sys
from modalrun.output.terminal.spinner import Spinner
with Spinner("Reading [b]runs[/b]", quiet={quiet}) as spinner:
    spinner.show("Looking")
    spinner.end()
    print("first")
    spinner.show("Waiting")
print("last")
if {quiet}:
    assert "rich" not in sys.modules
"""


def on_terminals(
    code: str, *, stdout: bool = True, stderr: bool = True, file: IO[bytes] | None = None
) -> str:
    """Run a program with stdout or stderr on a terminal, and return what that shows."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=file or (theirs if stdout else subprocess.PIPE),
        stderr=theirs if stderr else subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color"},
        check=False,
    )
    os.close(theirs)
    shown = b""
    # On Linux the end of a terminal is an error.
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:
        pass
    os.close(ours)
    assert done.returncode == 0, shown
    return shown.decode()


def test_on_a_terminal_it_goes_away_without_a_trace() -> None:
    shown = on_terminals(CODE.format(quiet=False))
    for text in ("Reading [b]runs[/b] ...", "Looking ...", "Waiting ..."):
        assert text in shown
        # The line that it stood on is erased, and the cursor is there again.
        after = shown[shown.rindex(text) :]
        assert "\x1b[?25h\r\x1b[1A\x1b[2K" in after
    assert shown.rindex("Looking ...") < shown.index("first") < shown.rindex("Waiting ...")
    assert shown.endswith("last\r\n")


@pytest.mark.parametrize(
    ("quiet", "stdout", "stderr"),
    [(True, True, True), (False, True, False), (False, False, True)],
    ids=["json", "no stderr", "piped"],
)
def test_elsewhere_there_is_nothing(quiet: bool, stdout: bool, stderr: bool) -> None:
    shown = on_terminals(CODE.format(quiet=quiet), stdout=stdout, stderr=stderr)
    assert shown == ("first\r\nlast\r\n" if stdout else "")


def test_a_file_that_gets_the_output_draws_nothing_itself(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as file:
        shown = on_terminals(CODE.format(quiet=False), file=file)
    assert "Looking ..." in shown
    assert (tmp_path / "model.bin").read_text() == "first\nlast\n"
