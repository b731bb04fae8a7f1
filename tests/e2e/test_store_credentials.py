"""An artifact store that only this machine's environment has credentials for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

REGISTER = """
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
client = Client()
orchestrator = client.active_stack_model.components[Kind.ORCHESTRATOR][0].id

def stack(name, flavor, scheme, environment=None, **configuration):
    configuration = {"path": f"{scheme}://bucket/{name}", **configuration}
    store = client.create_stack_component(
        name=name, flavor=flavor, component_type=Kind.ARTIFACT_STORE, configuration=configuration,
        environment=environment,
    )
    client.create_stack(name, {Kind.ORCHESTRATOR: orchestrator, Kind.ARTIFACT_STORE: store.id})

endpoint = {"endpoint_url": "http://127.0.0.1:9"}
stack("ambient", "s3", "s3", client_kwargs=endpoint)
stack("with-key", "s3", "s3", key="AKIA", secret="x")
stack("with-secret", "s3", "s3", authentication_secret="aws")
stack("with-variables", "s3", "s3", environment={"AWS_ACCESS_KEY_ID": "AKIA"})
result = 0
"""
SAID = "has no credentials of its own"


def notes(world: World, stack: str, *arguments: str) -> list[str]:
    path = str(world.spec("pipeline: sandboxes.plain\n"))
    command = [sys.executable, "-m", "modalrun", "plan", path, "--set", f"stack={stack}"]
    done = world.start([*command, "-o", "json", *arguments]).finish()
    found: dict[str, Any] = json.loads(done.stdout)
    return [note for note in found["notes"] if SAID in note]


def test_a_store_with_ambient_credentials_is_refused(world: World) -> None:
    world.zenml(REGISTER)
    refused = world.submit("pipeline: sandboxes.plain\nstack: ambient\n", **world.server())
    assert refused.exit_code == 2
    assert f"The artifact store 'ambient' (s3) {SAID}" in " ".join(refused.stderr.split())
    for way in ("connector", "--authentication_secret", "secrets:'"):
        assert way in refused.stderr
    assert world.runs() == []
    assert world.sandboxes() == []
    (note,) = notes(world, "ambient")
    assert "'submit' will refuse this run" in note
    assert len(notes(world, "ambient", "--target", "local")) == 1


@pytest.mark.exhaustive
def test_every_way_to_credentials_counts(world: World) -> None:
    world.zenml(REGISTER)
    assert [notes(world, f"with-{way}") for way in ("key", "secret", "variables")] == [[], [], []]
    secrets = ("--set", "settings.orchestrator.secrets=[aws]")
    assert notes(world, "ambient", *secrets) == []
    assert notes(world, "ambient", "--set", "environment={AWS_ROLE_ARN: arn}") == []
    docker = ("--set", "settings.docker.environment={AWS_SHARED_CREDENTIALS_FILE: /data/aws}")
    assert notes(world, "ambient", *docker) == []
