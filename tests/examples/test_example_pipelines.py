"""The example pipelines as `configs/` sets them up, run by ZenML's own local orchestrator."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.world import copy_zenml

# Not by its import, which takes seconds.
pytestmark = pytest.mark.skipif(not find_spec("sklearn"), reason="there is no scikit-learn")


class Example(NamedTuple):
    diamond: dict[str, Any]
    digits: dict[str, Any]
    digits_with_one_tree: dict[str, Any]
    terminal: str


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, zenml_template: Path) -> Example:
    folder = tmp_path_factory.mktemp("zenml")
    copy_zenml(zenml_template, folder / "config")
    one_tree = {"train_random_forest": {"parameters": {"trees": 1}}}
    requests = [
        {"config": "diamond.yaml", "parameters": {}, "steps": {}},
        {"config": "quickstart.yaml", "parameters": {}, "steps": {}},
        {"config": "quickstart.yaml", "parameters": {"test_size": 0.1}, "steps": one_tree},
    ]
    environment = {name: value for name, value in os.environ.items() if "ZENML" not in name} | {
        "HOME": str(folder),
        "ZENML_CONFIG_PATH": str(folder / "config"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_COLORS_DISABLED": "true",
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_example.py"), folder / "results.json"],
        input=json.dumps(requests),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return Example(*json.loads((folder / "results.json").read_text()), terminal=done.stdout)


def confusion_matrix(html: str) -> list[list[str]]:
    """The rows of the report's confusion matrix as a reader sees them, head and totals included."""
    (table,) = re.findall(r'<table class="confusion">.*?</table>', html, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_diamond_joins_both_branches(example: Example) -> None:
    assert example.diamond["status"] == "completed"
    assert example.diamond["upstream"] == {
        "load": [],
        "left": ["load"],
        "right": ["load"],
        "join": ["left", "right"],
    }
    assert example.diamond["artifacts"]["join.totals"] == {
        "total": 1 + 2 + 3 + 4,
        "total_of_powers": 1 + 8 + 27 + 64,
    }


def test_digits_trains_and_evaluates_the_models_side_by_side(example: Example) -> None:
    upstream = example.digits["upstream"]
    assert example.digits["status"] == "completed"
    assert upstream["train_logistic_regression"] == upstream["train_random_forest"] == ["split"]
    assert upstream["evaluate_random_forest"] == ["split", "train_random_forest"]


def test_digits_picks_the_better_model(example: Example) -> None:
    def accuracies(run: dict[str, Any]) -> tuple[float, ...]:
        return tuple(
            run["artifacts"][f"evaluate_{model}.evaluation"]["accuracy"]
            for model in ("logistic_regression", "random_forest")
        )

    linear, forest = accuracies(example.digits)
    assert 0.9 < linear < forest < 1
    assert example.digits["artifacts"]["pick.best_model"] == "RandomForestClassifier"
    assert example.digits["artifacts"]["pick.best_evaluation"]["accuracy"] == forest

    linear, forest = accuracies(example.digits_with_one_tree)
    assert forest < linear
    assert example.digits_with_one_tree["artifacts"]["pick.best_model"] == "LogisticRegression"
    assert example.digits_with_one_tree["artifacts"]["pick.best_evaluation"]["accuracy"] == linear


def test_digits_logs_what_it_picked(example: Example) -> None:
    metadata = example.digits["metadata"]["pick"]
    assert metadata["picked"] == "RandomForestClassifier"
    assert metadata["RandomForestClassifier"] > metadata["LogisticRegression"] > 0.9


@pytest.mark.parametrize(("run", "tested"), [("digits", 450), ("digits_with_one_tree", 180)])
def test_the_report_has_a_confusion_matrix_that_adds_up(
    example: Example, run: str, tested: int
) -> None:
    artifacts = getattr(example, run)["artifacts"]
    head, *body, totals = confusion_matrix(artifacts["report.report"])
    counts = [[int(cell or 0) for cell in row[1:-1]] for row in body]

    assert head == ["", *map(str, range(10)), "total"]
    assert [row[0] for row in body] == head[1:-1]
    assert counts == artifacts["pick.best_evaluation"]["confusion"]
    assert [int(row[-1]) for row in body] == [sum(row) for row in counts]
    assert [int(total) for total in totals[1:-1]] == [
        sum(column) for column in zip(*counts, strict=True)
    ]
    assert int(totals[-1]) == sum(map(sum, counts)) == tested

    right = sum(counts[i][i] for i in range(10))
    assert right / tested == pytest.approx(artifacts["pick.best_evaluation"]["accuracy"])
    assert f"{right} of {tested} digits" in artifacts["report.report"]


def test_zenml_can_show_the_report(example: Example) -> None:
    assert example.digits["visualizations"]["report"] == ["html"]
    report = example.digits["artifacts"]["report.report"]
    assert not re.search(r"<script|<link|<img|src=|href=|url\(", report)
    wrong = 450 - round(450 * example.digits["artifacts"]["pick.best_evaluation"]["accuracy"])
    assert report.count("<svg") == min(wrong, 12)


def test_the_terminal_shows_results_and_no_warnings(example: Example) -> None:
    assert re.search(r"RandomForestClassifier: accuracy 9\d\.\d\d%", example.terminal)
    assert "materializer" not in example.terminal
    assert "Warning" not in example.terminal
