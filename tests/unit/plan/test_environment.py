"""Sizes of environment variables."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from modalrun.errors import UsageError
from modalrun.plan.deployment import read_snapshot
from modalrun.plan.environment import MAX_TOTAL, MAX_VARIABLE, check_environment, of_process


def test_the_largest_variable_fits_into_a_process() -> None:
    value = "x" * (MAX_VARIABLE - len("BIG="))
    check_environment("the pipeline", {"BIG": value})
    if sys.platform == "linux":
        command = [sys.executable, "-c", "import os; print(len(os.environ['BIG']))"]
        done = subprocess.run(command, env={"BIG": value}, capture_output=True, check=True)
        assert int(done.stdout) == len(value)
        with pytest.raises(OSError, match="Argument list too long"):
            subprocess.run(command, env={"BIG": value + "x"}, check=False)

    with pytest.raises(UsageError, match="BIG of the pipeline has 131,072 bytes"):
        check_environment("the pipeline", {"BIG": value + "x"})


def test_bytes_count_not_characters() -> None:
    with pytest.raises(UsageError, match="of step 'a'"):
        check_environment("step 'a'", {"BIG": "\u00e9" * 70_000})


def test_many_variables_together_are_too_many() -> None:
    check_environment("the image", {f"V{n}": "x" * 100_000 for n in range(MAX_TOTAL // 100_100)})
    with pytest.raises(UsageError, match="variables of the image have"):
        check_environment("the image", {f"V{n}": "x" * 100_000 for n in range(10)})


def snapshot(step: str, environment: dict[str, Any]) -> dict[str, Any]:
    config = {"settings": {}, "environment": environment}
    steps = {
        step: {
            "config": config,
            "spec": {"upstream_steps": []},
            "step_config_overrides": {"settings": {}},
        }
    }
    pipeline = {"name": "p", "settings": {}, "execution_mode": "fail_fast"}
    return {"pipeline_configuration": pipeline, "step_configurations": steps}


def test_a_deployment_that_cannot_run_is_refused() -> None:
    assert read_snapshot(snapshot("s" * 255, {"A": 1})).steps[0].name == "s" * 255
    with pytest.raises(UsageError, match="255 characters as the name of a step"):
        read_snapshot(snapshot("s" * 256, {}))
    with pytest.raises(UsageError, match="BIG of step 'train'"):
        read_snapshot(snapshot("train", {"BIG": "x" * 200_000}))


def test_variables_that_a_process_must_start_with() -> None:
    variables = {"ZENML_LOGGING_VERBOSITY": "DEBUG", "ZENML_DEBUG": True, "TOKEN": "x"}
    assert of_process(variables) == {"ZENML_LOGGING_VERBOSITY": "DEBUG", "ZENML_DEBUG": "True"}
