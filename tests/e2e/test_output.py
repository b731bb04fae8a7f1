"""How a run's output arrives."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

NOISY = "pipeline: talking.noisy\ntarget: local\n"


def test_a_line_arrives_within_50_milliseconds(world: World) -> None:
    command = world.popen("pipeline: talking.ticking\ntarget: local\nparameters: {ticks: 200}\n")

    done = command.finish()

    assert done.exit_code == 0, done.stderr
    delays = []
    rest = b""
    for arrived, data in command.stdout.arrivals:
        *lines, rest = (rest + data).split(b"\n")
        ticks = [line.split() for line in lines if line.startswith(b"clock | tick ")]
        delays += [arrived - float(tick[3]) for tick in ticks]
    assert len(delays) == 200, "every line arrives once"
    assert statistics.median(delays) < 0.05
    assert min(delays) >= 0


def test_output_arrives_harmless_in_a_pipe(world: World) -> None:
    command = world.popen(NOISY)

    done = command.finish()

    assert done.exit_code == 0, done.stderr
    command.stdout.data.decode("utf-8")
    command.stderr.data.decode("utf-8")
    assert not set(done.stdout + done.stderr) & {"\x1b", "\0", "\a", "\r"}
    lines = [line.removeprefix("noise | ") for line in done.stdout.splitlines()]
    assert "title  cleared  nul  bell  end" in lines
    assert "red and [bold]no markup[/bold]" in lines
    assert any(re.fullmatch(r"bytes \ufffd+ end", line) for line in lines)
    assert "error bytes \ufffd( end" in done.stderr
    assert sum(len(line) for line in lines if set(line) == {"x"}) == 1_000_000
    assert "100 %" in lines and "10 %" not in done.stdout
    assert "ünïcödé ✓" in lines
    assert "after the noise" in lines
    # What ZenML itself says is part of it, but for lines that tell nobody anything.
    assert "Step noise has started." in lines
    assert "heartbeat" not in done.stdout


def test_a_terminal_shows_the_run_and_nothing_that_takes_it_over(world: World) -> None:
    done = world.popen(NOISY, terminal=True).finish()

    assert done.exit_code == 0, done.stdout
    shown = done.stdout
    assert "\x1b[" in shown, "a terminal gets colours"
    assert "\x1b]0;" not in shown and "\x1b[2J" not in shown and "\0" not in shown
    assert "\x1b[31mred" in shown, "and the step's own"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")
    assert "after the noise" in text
    assert re.search(r"^noise +completed +\d+\.\d s", text, re.M), text[-2000:]
    assert "Run completed." in text
    assert world.only_run().id in text


@pytest.mark.parametrize(
    "github", [True, pytest.param(False, marks=pytest.mark.exhaustive)], ids=["github", "plain"]
)
def test_a_run_commands_neither_ci_nor_a_terminal(world: World, github: bool) -> None:
    page = world.home / "summary.md"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)} if github else {}
    spec = 'pipeline: talking.commanding\ntarget: local\nrun_name: "n [/] ::error::x ##[x]"\n'

    submitted = world.popen(spec, **job).finish()
    run_id = world.only_run().id
    commands = [("status", run_id), ("logs", run_id), ("list", "--all"), ("status", "no ::error::")]
    shown = [submitted, *(world.modalrun(*command, **job).finish() for command in commands)]

    assert [done.exit_code for done in shown] == [1, 0, 0, 0, 4]
    assert "owned" in shown[2].stdout and "hidden" in shown[2].stdout
    ours = re.compile(r"::(?:group::commander|endgroup::|error title=Step commander failed::.*)")
    for done in shown:
        for text in (done.stdout, done.stderr):
            assert not set(text) & set("\x1b\r\u200b\u202e\u2060")
            assert not re.search(r"##\w*\[", text)
            lines = [line for line in text.splitlines() if line.lstrip().startswith("::")]
            assert [line for line in lines if not (github and ours.fullmatch(line))] == []
    assert page.exists() == github
