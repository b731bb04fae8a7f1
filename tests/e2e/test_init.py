"""The commands that `modalrun init` names work one after the other, in a package too."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

STEPS = """\
from zenml import step


@step(enable_cache=False)
def train(rate: float) -> None:
    print(f"TRAINED with {rate}")
"""

PIPELINE = """\
from churn.steps import train
from zenml import pipeline, step


@step(enable_cache=False)
def load() -> float:
    return 0.1


@pipeline
def training() -> None:
    train(load())


if __name__ == "__main__":
    training()
"""


@pytest.mark.local_store("the stack is made from the local default one")
@pytest.mark.parametrize(
    ("place", "start", "root"),
    [
        ("churn", "", ""),
        pytest.param("src/churn", "", "src", marks=pytest.mark.exhaustive),
        pytest.param("churn", "churn", "..", marks=pytest.mark.exhaustive),
    ],
)
def test_the_named_commands_run_a_package(world: World, place: str, start: str, root: str) -> None:
    folder = world.root / "own" / start
    package = world.root / "own" / place
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "steps.py").write_text(STEPS)
    (package / "pipeline.py").write_text(PIPELINE)

    def run(command: str) -> str:
        cd, _, rest = command.rpartition(" && ")
        program, *arguments = rest.split()
        # The tools of this Python, whatever the PATH is.
        zenml = ["-c", "from zenml.cli.cli import cli; cli()"]
        tools = {"python": [], "modalrun": ["-m", "modalrun"], "zenml": zenml}
        done = world.start(
            [sys.executable, *tools[program], *arguments], cwd=folder / cd[3:]
        ).finish()
        assert done.exit_code == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    told = run("modalrun init --target local")
    named = re.findall(r"^  \w.* {2,}(\w+ .*)$", told.partition("do now:")[2], re.M)[:4]
    assert named[-1] == (f"cd {root} && " if root else "") + "python -m churn.pipeline", told
    submitted, _, _, script = map(run, named)
    assert "TRAINED with 0.1" in submitted
    assert "TRAINED with 0.1" in script

    assert [one.status for one in world.runs()] == ["completed", "completed"]
    assert len(world.sandboxes()) == 2
