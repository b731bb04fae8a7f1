"""Random and mutated deployment files: each is planned, or refused as a mistake of the user's."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.output.plan_json import as_json
from modalrun.output.plan_text import lines
from modalrun.plan import deployment_file
from modalrun.plan.deployment import read_snapshot
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.stack import Component, StackDescription
from modalrun.spec.run_spec import load_spec
from modalrun.submit.prepare import plan_spec
from modalrun.submit.source.selection import select

_CONTENT = ' "content": '

DOCKER = {
    "apt_packages": ["git"],
    "environment": {"A": "b"},
    "parent_image": "python:3.11",
    "python_package_installer_args": {"x": None},
    "build_config": {"build_options": {"no_cache": True}},
}
STEP = {
    "spec": {"upstream_steps": []},
    "config": {
        "settings": {"docker": DOCKER},
        "retry": {"max_retries": 2, "delay": 1, "backoff": 2},
        "enable_cache": True,
        "environment": {"B": "c"},
    },
    "step_config_overrides": {
        "settings": {"orchestrator": {"gpu": "T4", "timeout": 60}, "resources": {"cpu_count": 2.0}}
    },
}
SNAPSHOT = {
    "pipeline_configuration": {
        "name": "p",
        "execution_mode": "stop_on_failure",
        "enable_cache": None,
        "environment": {"C": "d"},
        "settings": {
            "orchestrator": {
                **{"mode": "per_step", "region": ["us"], "volumes": {"data": "/data"}},
                **{"secrets": ["one"], "source_include": [], "max_parallelism": 3},
            },
            "resources": {"memory": "4GB"},
            "docker": DOCKER,
        },
    },
    "step_configurations": {
        "a": STEP,
        "b": {**STEP, "spec": {"upstream_steps": ["a"]}},
    },
    "is_dynamic": False,
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**20, max_value=10**60)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["a", "b", "..", "/etc", "A100:2", "4GB", "\x1b[2J", "x" * 300, "\ud83d"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

fuzzed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole deployment file, as it is written."""
    path = tmp_path_factory.mktemp("file") / "deployment.json"
    stack = StackDescription("id", "prod", (Component("artifact_store", "s3", "s3"),), "")
    deployment_file.write(
        path,
        DeploymentFile(read_snapshot(SNAPSHOT), SNAPSHOT, stack, "0.98.0", ".", "modal"),
    )
    made: dict[str, Any] = json.loads(path.read_text())
    return made


@pytest.fixture(autouse=True)
def _no_surrounding_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def signed(envelope: dict[str, Any]) -> str:
    """Return the text of a file with the right checksum, as an attacker would write it."""
    content = json.dumps(envelope["content"], separators=(",", ":"))
    checksum = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
    header = {key: value for key, value in envelope.items() if key != "content"}
    header = json.dumps({**header, "checksum": checksum}, indent=1)[:-2]
    return f"{header},\n{_CONTENT}{content}\n}}\n"


def plan(folder: Path, text: str | bytes) -> None:
    path = folder / "deployment.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        found = plan_spec(load_spec(path, target="modal"))
        tree = select(found.source)
    except UsageError as error:
        assert error.message
        return
    json.loads(as_json(found, tree))
    "\n".join(lines(found, explain="all")).encode()


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the path of every value inside another."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inner:
        found.append((*at, key))
        if isinstance(one, dict | list):
            found += places(one, (*at, key))
    return found


def mutate(envelope: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    changed = copy.deepcopy(envelope)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(changed)))
        here: Any = changed
        for key in place[:-1]:
            here = here[key]
        match data.draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                here[place[-1]] = data.draw(values)
            case "remove":
                del here[place[-1]]
            case _ if isinstance(here, dict):
                here[data.draw(st.text(max_size=5))] = data.draw(values)
    return changed


def test_the_file_itself(tmp_path: Path, written: dict[str, Any]) -> None:
    (tmp_path / "deployment.json").write_text(signed(written))
    plan_spec(load_spec(tmp_path / "deployment.json", target="local"))


@fuzzed
@given(st.data())
def test_mutated_content(tmp_path: Path, written: dict[str, Any], data: st.DataObject) -> None:
    plan(tmp_path, signed(mutate(written, data) | {"content": mutate(written["content"], data)}))


@settings(fuzzed, max_examples=30)
@given(st.data())
def test_mutated_text(tmp_path: Path, written: dict[str, Any], data: st.DataObject) -> None:
    text = signed(written)
    start = data.draw(st.integers(0, len(text)))
    end = start + data.draw(st.integers(0, 30))
    plan(tmp_path, text[:start] + data.draw(st.text(max_size=5)) + text[end:])


@settings(fuzzed, max_examples=30)
@given(st.binary(max_size=100) | values.map(json.dumps))
def test_random_bytes_and_json(tmp_path: Path, content: bytes | str) -> None:
    plan(tmp_path, content)


@pytest.mark.exhaustive
@settings(fuzzed, max_examples=1_000)
@given(st.data())
def test_much_mutated_content(tmp_path: Path, written: dict[str, Any], data: st.DataObject) -> None:
    plan(tmp_path, signed({**written, "content": mutate(written["content"], data)}))


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_ten_thousand_levels(tmp_path: Path, written: dict[str, Any], opened: str) -> None:
    with pytest.raises(UsageError):
        load_and_plan(tmp_path, opened * 10_000)
    for depth in (50, 150, 900):
        deep: Any = 1
        for _ in range(depth):
            deep = {"a": deep} if "a" in opened else [deep]
        changed = copy.deepcopy(written)
        for place in (("parameters",), ("settings", "orchestrator"), ("environment",), ("name",)):
            here = changed["content"]["snapshot"]["pipeline_configuration"]
            for key in place[:-1]:
                here = here[key]
            here[place[-1]] = deep
            plan(tmp_path, signed(changed))


def load_and_plan(folder: Path, text: str) -> None:
    path = folder / "deployment.json"
    path.write_text(text)
    plan_spec(load_spec(path, target="local"))


def test_numbers_without_end(tmp_path: Path, written: dict[str, Any]) -> None:
    text = signed(written)
    for number in ("9" * 100_000, "1e999999", "-" + "9" * 5_000, "NaN", "Infinity"):
        with pytest.raises(UsageError):
            load_and_plan(tmp_path, text.replace('"version": 1', f'"version": {number}'))
        content = json.dumps(written["content"], separators=(",", ":"))
        changed = content.replace('"timeout":60', f'"timeout":{number}')
        assert changed != content
        envelope = text.replace(content, changed).replace(
            hashlib.sha256(content.encode()).hexdigest(),
            hashlib.sha256(changed.encode()).hexdigest(),
        )
        with pytest.raises(UsageError):
            load_and_plan(tmp_path, envelope)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
    with pytest.raises(UsageError, match="more than"):
        plan_spec(load_spec(path))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UsageError):
        plan_spec(load_spec(path))


def test_a_circle_of_steps(tmp_path: Path, written: dict[str, Any]) -> None:
    changed = copy.deepcopy(written)
    steps = changed["content"]["snapshot"]["step_configurations"]
    for upstream in (["a"], ["b"], ["absent"]):
        steps["a"]["spec"]["upstream_steps"] = upstream
        with pytest.raises(UsageError):
            load_and_plan(tmp_path, signed(changed))
