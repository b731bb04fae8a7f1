"""The manifest of a run: it comes back as it was, is small, and holds no secret."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.run import manifest as module
from modalrun.run.manifest import RunManifest, Source
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.submit import source_changes

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
        source=Source(Path("/somewhere"), "0" * 64),
        variables=("ZENML_STORE_URL", "ZENML_STORE_API_TOKEN"),
    )


names = st.text(min_size=1, max_size=30)
resources = st.builds(
    Resources,
    gpus=st.lists(names, max_size=3).map(tuple),
    cpu=st.none() | st.floats(0.1, 64),
    memory=st.none() | st.integers(1, 10**6),
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
    prewarm=st.sampled_from(["off", "cpu", "all"]),
    creation_rate=st.floats(0.1, 64),
)


@given(st.lists(steps, max_size=5), run_settings)
def test_it_comes_back_as_it_was(some: list[PlannedStep], settings: RunSettings) -> None:
    made = replace(manifest(*some, settings=settings), cached=("a",), docker={"user": "me"})
    assert RunManifest.from_json(made.to_json()) == made
    assert RunManifest.from_metadata(json.loads(json.dumps(made.to_metadata()))) == made


def test_a_thousand_steps_fit_into_one_value_of_metadata() -> None:
    many = [
        PlannedStep(f"step_{n}", (f"step_{n - 1}",), sandbox=replace(SANDBOX, tags={"n": str(n)}))
        for n in range(1000)
    ]
    stored = manifest(*many).to_metadata()
    assert list(stored) == ["modalrun_manifest_0"]
    assert len(stored["modalrun_manifest_0"]) < 20_000


def test_two_thousand_files_fit_into_one_value_of_metadata() -> None:
    files = {
        f"package/of_{n % 40}/module_{n}.py": hashlib.sha256(str(n).encode()).hexdigest()
        for n in range(2000)
    }
    made = manifest()
    made = replace(made, source=replace(made.source, files=source_changes.hashes_to_store(files)))
    stored = made.to_metadata()
    assert list(stored) == ["modalrun_manifest_0"]
    assert RunManifest.from_metadata(stored) == made


def test_a_manifest_that_does_not_fit_into_one_value_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PIECE", 100)
    made = manifest(*(PlannedStep(f"step_{n}", sandbox=SANDBOX) for n in range(50)))
    stored = made.to_metadata()
    assert len(stored) > 2
    assert RunManifest.from_metadata({**stored, "other": 1}) == made


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"run_id": 2}', '{"run_id": "r", "plan": {}}', "null"]
)
def test_a_damaged_manifest(text: str) -> None:
    with pytest.raises(ValueError, match="the manifest can't be read: ") as caught:
        RunManifest.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_damaged_piece_of_metadata() -> None:
    with pytest.raises(ValueError, match="the manifest can't be read: "):
        RunManifest.from_metadata({"modalrun_manifest_0": "VPaz"})


def test_no_manifest() -> None:
    assert RunManifest.from_metadata({"modalrun_sandbox_id": "sb-1"}) is None
