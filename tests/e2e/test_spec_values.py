"""What the values of a run spec become: variables, texts, keys for several steps, secrets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Result, World

pytestmark = pytest.mark.e2e

PIPELINE = """\
import os
from typing import Any

from zenml import pipeline, step


@step
def train(tag: str, rate: float, anything: Any = None) -> None:
    print(f"TRAINED {tag!r} {rate!r} {os.environ.get('MODE')!r} {anything!r}")


@pipeline
def values(tag: str = "x", rate: float = 1.0, left: str = "") -> None:
    print(f"LEFT {left!r}")
    train(tag, rate)
    train(tag, rate)
    train(tag, rate, id="a.b")
"""

SPEC = """\
pipeline: values.values
target: local
enable_cache: false
parameters:
  tag: 007
  rate: 1e-3
  left: $${HOME}
environment:
  MODE: NO
  PASSWORD: ${PASSWORD}
steps:
  "train*":
    parameters:
      anything: ${WHO:-nobody}
  train_2:
    parameters:
      anything: NO
"""


def modalrun(world: World, *arguments: str, **environment: str) -> Result:
    return world.start([sys.executable, "-m", "modalrun", *arguments], **environment).finish()


def test_values_reach_the_steps_as_they_are_written(world: World) -> None:
    (world.project / "values.py").write_text(PIPELINE)
    spec = str(world.spec(SPEC))
    options = ("--set", "steps.a.b.environment.MODE=1.10", "--param", "tag=v1 #2")
    done = modalrun(world, "submit", spec, *options, PASSWORD="hunter2", WHO="somebody")
    assert done.exit_code == 0, done.stderr
    shown = done.stdout
    assert "TRAINED 'v1 #2' 0.001 'NO' 'somebody'" in shown
    assert "TRAINED 'v1 #2' 0.001 'NO' False" in shown
    assert "TRAINED 'v1 #2' 0.001 '1.10' None" in shown
    # ZenML replaces variables once more.
    assert "LEFT '${HOME}'" in done.stderr
    assert "'steps.train_2.parameters.anything' is NO, which YAML reads as false" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_mistake_shows_no_value_of_a_variable_even_for_debugging(world: World) -> None:
    (world.project / "values.py").write_text(PIPELINE)
    spec = str(world.spec(SPEC.replace("rate: 1e-3", "rate: ${PASSWORD}")))
    unset = modalrun(world, "plan", spec)
    assert unset.exit_code == 2
    assert f"{spec}:6: 'parameters.rate': the environment variable PASSWORD is" in unset.stderr
    wrong = modalrun(world, "--debug", "plan", spec, PASSWORD="hunter2")
    assert wrong.exit_code == 2
    assert "'parameters.rate' must be a number, not '${PASSWORD}'." in wrong.stderr
    assert "hunter2" not in wrong.stdout + wrong.stderr


def test_a_missing_secret_of_zenml_is_not_found(world: World) -> None:
    (world.project / "values.py").write_text(PIPELINE)
    text = SPEC.replace("${PASSWORD}", "x") + "  a.b: {secrets: [absent-b]}\nsecrets: [absent-a]\n"
    done = modalrun(world, "plan", str(world.spec(text)))
    assert done.exit_code == 4, done.stderr
    assert "ZenML has no secret 'absent-a' and no 'absent-b'" in done.stderr
    assert "zenml secret create absent-a" in done.stderr
    assert "under 'modal: secrets:'" in " ".join(done.stderr.split())


@pytest.mark.exhaustive
def test_zenml_logs_for_debugging_where_its_variable_says_so(world: World) -> None:
    (world.project / "values.py").write_text(PIPELINE)
    verbose = SPEC.replace("${PASSWORD}", "x").replace("MODE: NO", "ZENML_LOGGING_VERBOSITY: DEBUG")
    done = modalrun(world, "submit", str(world.spec(verbose)))
    assert done.exit_code == 0, done.stderr
    assert "heartbeat" in done.stdout.lower()
