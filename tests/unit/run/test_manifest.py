"""The manifest of a run comes back as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec

SANDBOX = SandboxSpec(
    command=("python", "-m", "modalrun.driver.supervisor", "modalrun.driver.step"),
    image="im-1",
    resources=Resources(cpu=1.0),
    timeout=86_400,
    env={"PYTHONUNBUFFERED": "1", "MODALRUN_TIMEOUT": "86400"},
)


SETTINGS = RunSettings(app_name="a", mode="per_step")


def manifest(*steps: PlannedStep, settings: RunSettings = SETTINGS) -> RunManifest:
    return RunManifest(
        run_id="2073f814-51c7-4a73-8174-90fe5c88b03c",
        plan=RunPlan("local", "some", settings, SANDBOX, steps),
        failure_mode="continue_on_failure",
        variables=("ZENML_STORE_URL", "ZENML_STORE_API_TOKEN"),
    )


names = st.text(min_size=1, max_size=30)
resources = st.builds(
    Resources,
    gpus=st.lists(names, max_size=3).map(tuple),
    cpu=st.floats(0.1, 64),
    memory=st.integers(1, 10**6),
    cpu_limit=st.none() | st.floats(0.1, 64),
    memory_limit=st.none() | st.integers(1, 10**6),
)
sandboxes = st.builds(
    SandboxSpec,
    command=st.tuples(names),
    image=names,
    resources=resources,
    timeout=st.integers(1, 86_400),
    cloud=st.none() | names,
    regions=st.lists(names, max_size=3).map(tuple),
    env=st.dictionaries(names, names, max_size=3),
    secrets=st.lists(names, max_size=3).map(tuple),
    volumes=st.dictionaries(names, names, max_size=3),
    tags=st.dictionaries(names, names, max_size=3),
)
steps = st.builds(
    PlannedStep,
    name=names,
    upstream=st.lists(names, max_size=4).map(tuple),
    retries=st.integers(0, 9),
    delay=st.integers(0, 9),
    backoff=st.integers(0, 9),
    caches=st.booleans(),
    sandbox=sandboxes,
)
run_settings = st.builds(
    RunSettings,
    mode=st.sampled_from(["pipeline", "per_step"]),
    app_name=names,
    modal_environment=st.none() | names,
    max_parallelism=st.none() | st.integers(1, 99),
    infrastructure_retries=st.integers(0, 9),
    keep_warm=st.integers(0, 999),
    creation_rate=st.floats(0.1, 64),
)


@given(st.lists(steps, max_size=5), run_settings)
def test_it_comes_back_as_it_was(some: list[PlannedStep], settings: RunSettings) -> None:
    made = replace(manifest(*some, settings=settings), done={"a": "cached"}, docker="d")
    assert RunManifest.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"run_id": 2}', '{"run_id": "r", "plan": {}}', "null"]
)
def test_a_damaged_manifest(text: str) -> None:
    with pytest.raises(ValueError, match="the manifest can't be read: ") as caught:
        RunManifest.from_json(text)
    assert "\n" not in str(caught.value)
