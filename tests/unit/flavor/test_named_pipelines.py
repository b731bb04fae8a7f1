"""A pipeline that `modalrun init` names is found, or refused, without importing its module."""

from pathlib import Path

import pytest
import yaml

from modalrun.errors import UsageError
from modalrun.flavor.init_project import spec_text
from modalrun.flavor.pipeline_discovery import named, pipelines

NAMED = """
from elsewhere import imported
from zenml import pipeline, step

@step
def load(): ...

@pipeline
def flow(rate: float): ...

@my_pipeline
def wrapped(): ...

def plain(): ...

made = pipeline(plain)
"""


@pytest.mark.parametrize(
    ("argument", "source"),
    [
        ("a.flows.flow", "a.flows.flow"),
        ("a.flows:flow", "a.flows.flow"),
        ("../a/flows.py:flow", "a.flows.flow"),
        ("fraud.flows:flow", "fraud.flows.flow"),
        ("../src/fraud/flows.py:flow", "fraud.flows.flow"),
        ("a:flow", "a.flow"),
        ("../a/__init__.py:flow", "a.flow"),
        # What only running the code shows.
        ("a.flows:imported", "a.flows.imported"),
        ("a.flows:made", "a.flows.made"),
        ("a.flows:wrapped", "a.flows.wrapped"),
    ],
)
def test_a_pipeline_is_named_as_for_other_commands(
    tmp_path: Path, argument: str, source: str
) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("a/flows.py", "a/__init__.py", "src/fraud/flows.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(NAMED)
    found = named(argument, tmp_path / "configs", tmp_path, [])
    assert found.source == source
    assert bool(found.parameters) == argument.endswith("flow")


@pytest.mark.parametrize(
    ("argument", "problem", "hint"),
    [
        ("flow", "'flow' is not a pipeline's source", "training.py:training"),
        ("my-flows.py:flow", "'my-flows.py:flow' is not", "training.py:training"),
        ("../flows.py:flow", "'../flows.py:flow' is not", "training.py:training"),
        ("flws.flow", "no pipeline 'flws.flow' below", "mean 'flows.flow'?"),
        ("flws.py:flow", "no pipeline 'flws.py:flow' below", "mean 'flows.flow'?"),
        ("flows:flw", "no pipeline 'flows:flw' below", "mean 'flows.flow'?"),
        ("flows:load", "no pipeline 'flows:load' below", ""),
        ("flows:plain", "no pipeline 'flows:plain' below", ""),
        ("broken:flow", "no pipeline 'broken:flow' below", ""),
    ],
)
def test_a_pipeline_that_is_not_there_is_refused(
    tmp_path: Path, argument: str, problem: str, hint: str
) -> None:
    (tmp_path / "flows.py").write_text(NAMED)
    (tmp_path / "broken.py").write_text("def (")
    with pytest.raises(UsageError) as caught:
        named(argument, tmp_path, tmp_path, pipelines(tmp_path))
    assert problem in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("project", "line", "expected"),
    [
        # The folder of the project is the package.
        ("shop/churn", "from churn.steps import load", ("churn.train.flow", "..")),
        ("shop/churn", "from steps import load", ("train.flow", None)),
        ("shop", "from churn.steps import load", ("churn.train.flow", None)),
        (".", "from churn.steps import load", ("churn.train.flow", "shop")),
        (".", "", ("shop.churn.train.flow", None)),
    ],
)
def test_modules_are_imported_from_the_folder_that_they_name(
    tmp_path: Path, project: str, line: str, expected: tuple[str, str | None]
) -> None:
    package = tmp_path / "shop" / "churn"
    package.mkdir(parents=True)
    (package / "steps.py").touch()
    (package / "train.py").write_text(f"{line}\n@pipeline\ndef flow(): ...\n")
    root = tmp_path / project

    (found,) = pipelines(root)

    text = spec_text(found, "default", "local", root, root)
    data = yaml.safe_load(text)
    assert (data["pipeline"], data.get("source_root")) == expected
    assert ("PYTHONPATH" in text) == (expected[1] == "shop")
    assert named(found.source, root, root, [found]) == found
    relative = package.relative_to(root) / "train.py"
    assert named(f"{relative}:flow", root, root, [found]) == found
