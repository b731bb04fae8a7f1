"""The arguments of `modal.Sandbox.create` for a sandbox spec."""

import sys
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest

from modalrun.modal_api.sandboxes.sandbox_arguments import SandboxArguments
from modalrun.run.run_plan import RunPlan, RunSettings, Target
from modalrun.run.sandbox_spec import Resources, SandboxSpec

SPEC = SandboxSpec(
    command=("python",),
    image="im-1",
    resources=Resources(("A100:2", "T4"), cpu=2.0, memory=1024),
    timeout=60,
    cloud="aws",
    regions=("us-east", "eu"),
    env={"A": "1"},
    secrets=("first", "second"),
    volumes={"data": "/data"},
    name="modalrun-1",
    tags={"modalrun-role": "run"},
)


def arguments(target: Target = "modal", *, package: bool = True) -> SandboxArguments:
    settings = RunSettings(app_name="a", modal_environment="staging")
    plan = RunPlan(target, "p", settings, SPEC)
    return SandboxArguments(plan, {"TOKEN": "s3cret"}, package=package)


def made(spec: SandboxSpec, gpu: str | None = None) -> dict[str, Any]:
    return arguments().of(spec, gpu)


def test_a_local_sandbox_has_this_python_whatever_the_servers_is() -> None:
    python = {"MODALRUN_LOCAL_PYTHON": sys.prefix}
    spec = replace(SPEC, env={"A": "1", "PYTHONPATH": "/src"})
    found = arguments("local", package=False).of(spec, "T4")["env"]
    assert found == {"A": "1", "MODALRUN_GPU": "T4", **python}


def test_every_field_of_a_spec_arrives() -> None:
    found = made(SPEC, "T4")
    secrets, volumes = found.pop("secrets"), found.pop("volumes")
    assert found == {
        "name": "modalrun-1",
        "tags": {"modalrun-role": "run"},
        "env": {"A": "1", "MODALRUN_GPU": "T4"},
        "timeout": 60,
        "workdir": "/app/code",
        "gpu": "T4",
        "cpu": 2.0,
        "memory": 1024,
        "cloud": "aws",
        "region": ["us-east", "eu"],
    }
    assert len(secrets) == 3, "modalrun's own comes last, so that no named one replaces it"
    assert list(volumes) == ["/data"]


def test_a_sandbox_without_settings() -> None:
    found = made(SandboxSpec(("python",), "im-1", Resources(), 60))
    assert (found["gpu"], found["cpu"], found["memory"]) == (None, 0.5, 1024)
    assert (found["cloud"], found["region"]) == (None, None)
    assert found["env"] == {"MODALRUN_CREATED": ANY}


@pytest.mark.parametrize(
    ("asked", "cpu", "memory"),
    [
        (Resources(cpu=1.0, cpu_limit=4.0), (1.0, 4.0), 1024),
        (Resources(cpu_limit=4.0), (0.5, 4.0), 1024),
        (Resources(memory=512, memory_limit=2048), 0.5, (512, 2048)),
        (Resources(memory_limit=2048), 0.5, (1024, 2048)),
    ],
)
def test_a_limit_makes_a_pair(asked: Resources, cpu: Any, memory: Any) -> None:
    found = made(SandboxSpec(("python",), "im-1", asked, 60))
    assert (found["cpu"], found["memory"]) == (cpu, memory)


def test_the_same_secret_and_volume_are_looked_up_once() -> None:
    shared = arguments()
    first, second = shared.of(SPEC, None), shared.of(SPEC, None)
    assert [id(one) for one in first["secrets"]] == [id(one) for one in second["secrets"]]
    assert first["volumes"]["/data"] is second["volumes"]["/data"]
