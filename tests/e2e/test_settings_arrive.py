"""What is written in the run spec and in the code reaches the sandbox and the steps."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.folders import files_with

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = """
pipeline: configured.configured
target: local
stack: second
parameters:
  word: yaml
secrets: [hidden]
settings:
  orchestrator:
    gpu: t4
    timeout: 500
  resources:
    gpu_count: 2
steps:
  tell:
    parameters:
      times: 2
    environment:
      STEP_VARIABLE: the-step
"""


PREPARE = """
from zenml.client import Client
from zenml.enums import StackComponentType
client = Client()
client.create_secret("hidden", {{"SECRET_WORD": "{word}"}})
client.create_stack(
    "second",
    {{
        StackComponentType.ORCHESTRATOR: "default",
        StackComponentType.ARTIFACT_STORE: "default",
    }},
)
result = client.active_stack_model.name
"""


def test_stack_settings_parameters_and_secrets_arrive(world: World) -> None:
    word = "open-sesame-8472"
    assert world.zenml(PREPARE.format(word=word)) == world.stack
    config = world.zenml_config / "config.yaml"
    before = config.read_bytes()

    done = world.submit(SPEC)

    assert done.exit_code == 0, done.stderr
    assert "told yamlyaml by the-step" in done.stdout
    assert f"secret {hashlib.sha256(word.encode()).hexdigest()}" in done.stdout

    assert world.only_run().stack == "second"
    assert config.read_bytes() == before, "the active stack is still the other one"

    (sandbox,) = world.sandboxes()
    # With a GPU the SDK uses its older backend, which has ids of its own form.
    assert len(sandbox.id) == len("sb-") + 22
    assert (sandbox.gpu.upper(), sandbox.gpu_count) == ("T4", 2)
    # From the code: of the pipeline, and the step's as the highest that any asks for.
    assert (sandbox.milli_cpu, sandbox.memory_mb) == (1500, 3072)
    assert (sandbox.cloud, sandbox.regions) == ("aws", ["us-east", "us-west"])
    # In both: the run spec wins.
    assert sandbox.timeout_secs == 500

    plain = [done.stdout, done.stderr, str(vars(sandbox)), *world.processes().values()]
    assert not any(word in text for text in plain)
    assert files_with(world.state, word) == []
