"""What a GitHub Actions job shows of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_job_shows_where_a_step_failed_and_when_each_ran(world: World, mode: str) -> None:
    page = world.root / "summary.md"
    top = world.project.parent

    done = world.submit(
        "pipeline: charted.charted\ntarget: local\n",
        "--mode",
        mode,
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(page),
        GITHUB_WORKSPACE=str(top),
    )

    assert done.exit_code == 1, done.stderr
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    file = f"{world.project.relative_to(top)}/charted.py"
    assert error.startswith(f"::error title=Step train failed,file={file},line=15::ZeroDivision")
    text = page.read_text()
    gantt, graph = re.findall(r"```mermaid\n(.*?)\n```", text, re.S)
    assert re.search(r"^section prepare\n(.* : done, .*\n)*.* s : active, \d+, \d+$", gantt, re.M)
    assert re.search(r"^section train\n(.* : done, .*\n)*(.* s|·) : crit, \d+, \d+$", gantt, re.M)
    assert graph.startswith('flowchart LR\ns0["prepare"]\ns1["train<br>failed"]:::failed\n')
    assert "\ns0 --> s1\n" in graph
    # Below a hundredth of a cent on a fast machine: "below $0.0001".
    assert re.search(r"^- cost: `nothing here; on Modal (about|below) ", text, re.M), text
