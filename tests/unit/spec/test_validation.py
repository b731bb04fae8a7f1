"""Mistakes in a run spec: each names its line, and all are reported together."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun import DOCS
from modalrun.spec.run_spec import RunSpec
from unit.specs import PIPELINE, line_of, mistake, mistakes

Load = Callable[[str], RunSpec]


# Unknown keys: the place, the name, the parent, and the nearest valid key.


@pytest.mark.parametrize(
    ("text", "line", "key", "parent", "close"),
    [
        ("pipline: a.b\n", 1, "pipline", None, "pipeline"),
        (PIPELINE + "enable_cach: true\n", 2, "enable_cach", None, "enable_cache"),
        (PIPELINE + "sources_root: x\n", 2, "sources_root", None, "source_root"),
        (PIPELINE + "steps:\n  a:\n    setings: {}\n", 4, "setings", "steps.a", "settings"),
        (PIPELINE + "settings:\n  orchstrator: {}\n", 3, "orchstrator", "settings", "orchestrator"),
        (PIPELINE + "settings:\n  resource: {}\n", 3, "resource", "settings", "resources"),
        (
            PIPELINE + "settings:\n  orchestrator:\n    gppu: T4\n",
            4,
            "gppu",
            "settings.orchestrator",
            "gpu",
        ),
        (
            PIPELINE + "settings:\n  orchestrator.modalrun:\n    regoin: us\n",
            4,
            "regoin",
            "settings.orchestrator.modalrun",
            "region",
        ),
        (
            PIPELINE + "steps:\n  a:\n    settings:\n      orchestrator:\n        timeot: 1\n",
            6,
            "timeot",
            "steps.a.settings.orchestrator",
            "timeout",
        ),
        pytest.param(
            PIPELINE + "modal:\n  enviroment: x\n",
            3,
            "enviroment",
            "modal",
            "environment",
        ),
    ],
)
def test_unknown_key(  # noqa: PLR0917
    tmp_path: Path, text: str, line: int, key: str, parent: str | None, close: str
) -> None:
    error = mistake(tmp_path, text)
    assert line_of(error, tmp_path) == line
    under = f" under '{parent}'" if parent else ""
    assert error.message.endswith(f": unknown key '{key}'{under}.")
    assert error.hint == f"Did you mean '{close}'?"


def test_unknown_key_without_a_similar_one_lists_the_valid_keys(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "retry: {zzzzzz: 1}\n")
    assert error.hint == "Valid keys: backoff, delay, max_retries."


def test_a_setting_that_was_replaced_names_the_new_one(tmp_path: Path) -> None:
    text = "settings: {orchestrator: {mode: per_step, prewarm: cpu}}\n"
    error = mistake(tmp_path, PIPELINE + text)
    assert error.message.endswith("unknown key 'prewarm' under 'settings.orchestrator'.")
    assert error.hint == f"Use 'keep_warm: SECONDS' instead ({DOCS}/modes.md)."


@pytest.mark.parametrize("key", ["5", "2024-01-02", "1.50", "true", "~"])
def test_key_that_is_not_a_string(tmp_path: Path, key: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}{key}: 1\n")
    assert "unknown key" in error.message
    assert line_of(error, tmp_path) == 2


def test_a_number_is_a_valid_step_name(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "steps:\n  a: {}\n  7:\n    setings: {}\n")
    assert "'steps.7'" in error.message
    assert line_of(error, tmp_path) == 5


# Wrong types.


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("settings: []\n", 2, "'settings' must be a mapping (key: value), not a list"),
        ("settings: 3\n", 2, "'settings' must be a mapping (key: value), not 3"),
        ("steps: [a]\n", 2, "'steps' must be a mapping (key: value), not a list"),
        ("steps: all\n", 2, "'steps' must be a mapping (key: value), not 'all'"),
        ("steps:\n  a: fast\n", 3, "'steps.a' must be a mapping (key: value), not 'fast'"),
        (
            "steps:\n  a:\n    settings: [1]\n",
            4,
            "'steps.a.settings' must be a mapping (key: value), not a list",
        ),
        (
            "settings:\n  orchestrator: T4\n",
            3,
            "'settings.orchestrator' must be a mapping (key: value), not 'T4'",
        ),
        ("target: cloud\n", 2, "'target' must be 'modal' or 'local', not 'cloud'"),
        ("target: true\n", 2, "'target' must be 'modal' or 'local', not true"),
        ("stack: 5\n", 2, "'stack' must be a string, not 5"),
        ("memory: 4\n", 2, "'4' is not an amount of memory; write a whole number and a unit"),
        ("memory: [4]\n", 2, "must be a string, not a list"),
        ("memory: true\n", 2, "must be a string, not true"),
        ("stack: ''\n", 2, "'stack' must be a string that is not empty, not ''"),
        ("source_root: 5\n", 2, "'source_root' must be a string, not 5"),
        ("modal: [a]\n", 2, "'modal'"),
        ("modal:\n  environment: 5\n", 3, "'modal.environment'"),
    ],
)
def test_wrong_type(tmp_path: Path, text: str, line: int, problem: str) -> None:
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == line
    assert problem in error.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image: {from: x}\n", "unknown key 'from' under 'image'"),
        ("deployment: some-id\n", "both 'pipeline' and 'deployment'"),
        ("schedule: {cron_expression: '* * * * *'}\n", "Scheduled pipelines"),
        ("build: some-id\n", "image builds are not used"),
    ],
)
def test_top_level_key_that_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 2
    assert problem in error.message


def test_a_wrong_spec_imports_neither_sdk(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("pipline: a.b\n", encoding="utf-8")
    code = (
        "import json, sys\n"
        "from modalrun.cli import run\n"
        "code = run(['submit', sys.argv[1]])\n"
        "print(json.dumps([code, sorted({m.partition('.')[0] for m in sys.modules})]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    exit_code, modules = json.loads(done.stdout)
    assert exit_code == 2
    assert not {"zenml", "modal"} & set(modules)
    assert done.stderr == (f"Error: {path}:1: unknown key 'pipline'.\n  Did you mean 'pipeline'?\n")


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    text = """\
target: cloud
stak: prod
modal: {enviroment: e, workspace: 5}
parameters: {rate: 1}
settings:
  orchestrator: {timeout: soon, gpu: [1, 2], cloud: 7}
  resources: {cpu_count: many, memery: 1GB}
steps:
  train: {settings: {orchestrator: {mode: fast}}, setings: {}}
  load: quick
source_root: nowhere
"""
    error = mistakes(tmp_path, text)
    lines = [line.removeprefix(f"{tmp_path / 'run.yaml'}:") for line in error.message.split("\n")]
    assert sorted({int(line.partition(":")[0]) for line in lines}) == [1, 2, 3, 6, 7, 9, 10, 11]
    assert len(lines) == 13, error.message
    assert "2: unknown key 'stak'. Did you mean 'stack'?" in lines
    assert "6: 'settings.orchestrator.cloud' must be a string, not 7." in lines
