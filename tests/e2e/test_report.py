"""`modalrun report` and `open`: a run as a page, from any machine, whatever became of it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = """
pipeline: reported.reported
target: local
settings:
  docker: {environment: {TOKEN: not-for-others}}
  orchestrator: {timeout: 300}
"""


def report(world: World, run: str = "latest", **environment: str) -> str:
    """Make the report of a run; return its HTML."""
    path = world.root / "run.html"
    path.unlink(missing_ok=True)
    done = world.modalrun("report", run, "--output", str(path), **environment).finish()
    assert (done.exit_code, done.stdout) == (0, f"{path}\n"), done.stderr
    return path.read_text(encoding="utf-8")


def row(page: str, step: str) -> str:
    """Return what the row of a step in the timeline says."""
    found = re.search(rf'aria-label="({re.escape(step)}, [^"]*)"', page)
    assert found, step
    return found[1]


@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_failed_run_has_a_page_and_no_other(world: World, mode: str) -> None:
    done = world.submit(SPEC, "--mode", mode)
    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    command = f"modalrun report {run.id} --open"
    assert f"report  {command}" in done.stderr

    page = report(world)

    assert "<title>reported: failed</title>" in page and run.id in page
    assert "ValueError: nobody reads &lt;script&gt;alert(1)&lt;/script&gt; (reported.py:" in page
    assert "reported.py" in page and "about to publish &lt;b&gt;it&lt;/b&gt;" in page
    assert row(page, "evaluate").startswith("evaluate, completed: ")
    phases = row(page, "publish")
    assert "failed (try 2)" in phases
    assert ("import" in phases) == (mode == "per_step"), phases
    # The visualizations that ZenML has stored, in which nothing runs.
    (frame,) = re.findall(r'<iframe sandbox="" [^>]*srcdoc="([^"]*)"', page)
    assert "<h1>Confusion</h1>" in unescape(frame)
    assert "<td>&lt;b&gt;44&lt;/b&gt;</td>" in page
    assert "<script" not in page
    assert "pipeline: reported.reported" in page and "Plan of pipeline" in page
    assert "\ntarget: local\n" in page
    assert "not-for-others" not in page
    assert re.search(r"\n +run +mode +\w+ +command line\n", page)
    assert re.search(r"\n +\S+ +timeout +\w+ +run spec, pipeline\n", page)
    # Below a hundredth of a cent on a fast machine: "below $0.0001".
    assert "nothing" in page and re.search(r"on Modal (about|below) \$0\.\d{4}", page)

    # ZenML's records are in a database, and the run was on the local server.
    opened = world.modalrun("open", run.id).finish()
    if world.place is None:
        address = opened.stdout.strip()
        assert address.startswith("file://"), opened.stderr
        assert run.id in Path(address.removeprefix("file://")).read_text(encoding="utf-8")
        refused = world.modalrun("open", run.id, "zenml").finish()
        assert refused.exit_code == 4 and "has no page in ZenML's dashboard" in refused.stderr
    else:
        assert f"/runs/{run.id}" in opened.stdout
    assert world.modalrun("open", run.id, "modal").finish().exit_code == 4


@pytest.mark.exhaustive
def test_a_run_that_goes_on_has_a_page_too(world: World) -> None:
    gate = world.gate()
    spec = "pipeline: waiting.waiting\ntarget: local\nsettings: {orchestrator: {timeout: 300}}\n"
    command = world.popen(spec, "--param", f"gate={gate}", "--mode", "per_step")
    command.stdout.wait_for("waiting in")
    page = report(world)
    assert "<title>waiting: running</title>" in page and "so far" in page
    assert row(page, "wait").endswith("goes on")
    assert row(page, "afterwards") == "afterwards, waiting"
    gate.open()
    assert command.finish().exit_code == 0


@pytest.mark.exhaustive
def test_results_of_earlier_runs_have_no_phases(world: World) -> None:
    spec = f"""
pipeline: rerunning.growing
target: local
parameters: {{file: {world.root / "file"}}}
settings: {{orchestrator: {{timeout: 300}}}}
"""
    assert world.submit(spec).exit_code == 1
    (world.root / "file").touch()
    rerun = world.modalrun("rerun", "latest", "--source-root", str(world.project)).finish()
    assert rerun.exit_code == 0, rerun.stderr
    page = report(world)
    assert row(page, "load") == "load, skipped"
    assert row(page, "left").startswith("left, completed: ")
    # Which steps a dynamic pipeline's steps wait for is known from their records.
    assert "2 steps in" not in page and re.search(r"5 steps in [2-5] layers", page)


@pytest.mark.exhaustive
def test_a_machine_without_the_project_makes_the_page(world: World) -> None:
    assert world.submit(SPEC, "--param", "wrong=false").exit_code == 0
    page = report(world, TMPDIR=str(world.elsewhere))
    assert "<title>reported: completed</title>" in page
    assert 'id="failures"' not in page
    again = world.submit(SPEC, "--param", "wrong=false", "--set", "enable_cache=true")
    assert again.exit_code == 0
    assert world.modalrun("report", "latest").finish().exit_code == 0
