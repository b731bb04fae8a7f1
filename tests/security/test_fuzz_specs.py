"""Random and mutated run specs: each is read, or is a mistake of the user's with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.spec import places, schema
from modalrun.spec.fields import ResourceFields, SettingFields
from modalrun.spec.overrides import param_option, set_option
from modalrun.spec.run_spec import load_spec, target_of_spec

SPEC = """\
pipeline: project.training.pipeline
x-anchors: [&region us]
region: *region
cpu: 2.5
stack: prod
target: local
source_root: .
extra: &gpu {gpu: [A100, "H100:2"]}
modal: {environment: dev, secrets: [one], volumes: {data: /data}}
image: {name: my-image}
run_name: "run {date}"
enable_cache: false
parameters: {epochs: 3, rate: 1e-3, when: 2026-01-31, big: 0x1F, text: "\\u00fc"}
settings:
  orchestrator: {<<: *gpu, timeout: 60, mode: per_step, keep_warm: 9}
  resources: {cpu_count: 2.5, memory: 4GB}
  docker: {requirements: [numpy], environment: {A: b}}
steps:
  train: {enable_cache: true, retry: {max_retries: 2}, settings: {resources: {gpu_count: 1}}}
"""

NAMES = sorted(
    {*places.TOP_KEYS, *places.MODAL_KEYS}
    | {*schema.STEP_KEYS, *schema.HOOK_KEYS, *schema.DockerKeys.model_fields, *schema.COMPONENTS}
    | {*SettingFields.model_fields, *ResourceFields.model_fields, *schema.RetryKeys.model_fields}
    | {"orchestrator.modal", "orchestrator:x", "resources", "docker", "name", "source", "<<", "="}
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.dates()
    | st.datetimes()
    | st.sampled_from(
        ["a.b", "local", "A100:2", "16GB", "run.yaml", "..", "~x", "\x1b[2J", "x" * 300]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | scalars, inner, max_size=6)
        | st.sets(st.text(max_size=3), max_size=2)
    ),
    max_leaves=25,
)
specs = st.dictionaries(st.sampled_from(NAMES), values, max_size=10)

fuzzed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(folder: Path, text: str | bytes) -> None:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    assert target_of_spec(path) in {"modal", "local"}
    try:
        spec = load_spec(path)
    except UsageError as error:
        assert str(path) in error.message
        return
    assert spec.source_root.is_dir()


@fuzzed
@given(specs)
def test_random_keys_and_values(tmp_path: Path, spec: dict[str, Any]) -> None:
    spec.setdefault("pipeline", "a.b")
    read(tmp_path, yaml.safe_dump(spec, allow_unicode=True))


@fuzzed
@given(st.data())
def test_mutated_text(tmp_path: Path, data: st.DataObject) -> None:
    text = SPEC
    pieces = ["&a ", "*a", "*gpu", "!!set", "!!int ", "!!binary ", "? ", "- ", ": ", "{", "[", "'"]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        piece = data.draw(st.sampled_from(pieces) | st.sampled_from(NAMES) | st.text(max_size=5))
        text = text[:start] + piece + text[end:]
    read(tmp_path, text)


@fuzzed
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_random_bytes_and_text(tmp_path: Path, content: str | bytes) -> None:
    read(tmp_path, content)


@fuzzed
@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.text(max_size=40))
def test_random_options(tmp_path: Path, key: str, below: str, value: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(SPEC, encoding="utf-8")
    try:
        overrides = [set_option(f"{key}.{below}={value}"), param_option(f"{below}={value}")]
        load_spec(path, overrides=overrides)
    except UsageError as error:
        assert error.message


@pytest.mark.exhaustive
@pytest.mark.timeout(900)  # Minutes of computing, and more where cores are shared.
@settings(fuzzed, max_examples=1_500)
@given(specs)
def test_many_random_keys_and_values(tmp_path: Path, spec: dict[str, Any]) -> None:
    read(tmp_path, yaml.safe_dump(spec | {"pipeline": "a.b"}, allow_unicode=True))
