"""Lazy activation gives a pipeline the same materializers as ZenML's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("lazy_and_eager.py")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    config = tmp_path_factory.mktemp("zenml")
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(config),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    running = {
        how: subprocess.Popen(
            [sys.executable, str(SCRIPT), how],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for how in ("lazy", "eager")
    }
    found = {}
    for how, process in running.items():
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        found[how] = json.loads(out.splitlines()[-1])
    return found


def test_same_materializer_for_every_value(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["lazy"]["found"] == answers["eager"]["found"]


def test_the_comparison_compares_something(answers: dict[str, dict[str, Any]]) -> None:
    found = answers["eager"]["found"]
    assert found["ndarray"].endswith("NumpyMaterializer")
    assert found["sklearn model"].endswith("SklearnMaterializer")
    assert found["sparse matrix"].endswith("SparseMaterializer")
    assert found["pydantic model"].endswith("PydanticMaterializer")
    assert found["user's dataclass"].endswith("DataclassMaterializer")
    assert found["list of ndarray"].endswith("BuiltInContainerMaterializer")


def test_all_types_of_all_installed_integrations_when_they_are_listed(
    answers: dict[str, dict[str, Any]],
) -> None:
    assert answers["lazy"]["registered"] == answers["eager"]["registered"]


def test_nothing_is_imported_before_it_is_needed(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["lazy"]["early"] is False
