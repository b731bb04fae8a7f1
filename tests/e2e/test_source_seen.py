"""What of the source tree a sandbox gets is seen, and what it lacks is said."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


def test_a_file_that_did_not_go_along_is_named_with_its_rule(world: World) -> None:
    (world.project / "data").mkdir()
    (world.project / "data" / "labels.csv").write_text("a,b")
    (world.project / ".gitignore").write_text("data/\n")

    done = world.submit("pipeline: missing.missing\ntarget: local\n")

    told = " ".join(done.stderr.split())
    assert done.exit_code == 1
    reason = "FileNotFoundError: [Errno 2] No such file or directory: 'data/labels.csv'"
    assert f"reads: {reason} (missing.py:11)" in told
    assert "labels.csv is in the source root, but did not go along (data/ in .gitignore)" in told
    assert "Take it along: 'source_include: [data/labels.csv]' in the run spec" in told


@pytest.mark.exhaustive
def test_a_module_that_does_not_go_along_is_refused_before_the_run(world: World) -> None:
    (world.project / "labels").mkdir()
    (world.project / "labels" / "__init__.py").touch()
    (world.project / ".gitignore").write_text("labels/\n")
    module = world.project / "missing.py"
    module.write_text(f"import labels\n{module.read_text()}")
    spec = world.spec("pipeline: missing.missing\ntarget: local\n")
    command = [sys.executable, "-m", "modalrun"]
    world.start([*command, "compile", str(spec), "-o", "d.json"], cwd=world.project).finish()

    for name in ("plan", "submit"):
        for argument in (str(spec), "d.json"):
            done = world.start([*command, name, argument], cwd=world.project).finish()
            assert done.exit_code == 2
            assert "labels (labels/ in .gitignore)" in " ".join(done.stderr.split())
    assert world.runs() == []


@pytest.mark.exhaustive
def test_a_rerun_gets_the_file_that_its_command_line_names(world: World) -> None:
    test_a_file_that_did_not_go_along_is_named_with_its_rule(world)

    def rerun(*options: str) -> str:
        command = [sys.executable, "-m", "modalrun", "rerun", "latest", *options]
        done = world.start(command, cwd=world.project).finish()
        assert done.exit_code == 0, done.stderr
        return done.stderr

    assert "labels.csv" not in rerun("--set", "source_include=[data/labels.csv]")
    # It is of the source tree of that run.
    rerun("--from", "reads")
    assert [run.status for run in world.runs()] == ["failed", "completed", "completed"]


def test_a_src_layout_and_a_module_that_hides_another_are_refused(world: World) -> None:
    package = world.project / "src" / "churn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (world.project / "missing.py").rename(package / "training.py")
    spec = world.spec("pipeline: churn.training.missing\ntarget: local\n")

    done = world.submit(spec, PYTHONPATH=str(package.parent))

    told = " ".join(done.stderr.split())
    assert done.exit_code == 2
    assert f"is imported from {package.resolve()}" in told and "source_root: src" in told
    assert "'PYTHONPATH: src' in the run spec below 'settings: docker: environment:'" in told

    (world.project / "yaml.py").write_text("")
    # Also where the current folder is the source root.
    command = [sys.executable, "-m", "modalrun", "plan", str(spec)]
    done = world.start(command, cwd=world.project).finish()
    assert done.exit_code == 2
    assert "yaml.py hides the module 'yaml' that ZenML and modalrun import" in done.stderr
    assert not world.runs()


_BESIDE = """
from pathlib import Path
from zenml import pipeline, step

@step
def first() -> str:
    return Path("data/labels.csv").read_text()

@step
def second(labels: str) -> str:
    # Imported late, from the source of this step.
    from churn.names import prefix
    return prefix + labels + Path("data/labels.csv").read_text()

@pipeline(enable_cache=False)
def beside() -> None:
    second(first())
"""


@pytest.mark.parametrize(
    "how",
    [
        "{mode: pipeline}",
        # The second step runs in the sandbox of the first, with source of its own.
        pytest.param("{mode: per_step, keep_warm: 60}", marks=pytest.mark.exhaustive),
    ],
)
def test_a_src_layout_with_data_beside_it_runs_from_the_project(world: World, how: str) -> None:
    package, data = world.project / "src" / "churn", world.project / "data"
    for folder in (package, data):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "names.py").write_text("prefix = 'p'")
    (package / "training.py").write_text(_BESIDE)
    (data / "labels.csv").write_text("a")

    done = world.submit(
        f"""
        pipeline: churn.training.beside
        target: local
        settings:
          docker: {{environment: {{PYTHONPATH: src}}}}
          orchestrator: {how}
        """
    )

    assert done.exit_code == 0, done.stderr
    (run,) = world.runs()
    assert run.statuses == {"first": "completed", "second": "completed"}
