"""The errors of a project's code while its pipeline is imported."""

import sys
from pathlib import Path

import pytest
from zenml import pipeline, step

from modalrun.errors import UsageError
from modalrun.settings import ModalOrchestratorSettings
from modalrun.spec.run_spec import load_spec
from modalrun.zenml_api.compiling.user_code import import_pipeline, user_code


def test_the_folder_of_a_missing_module_is_relative_to_the_run_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (".zen", "configs", "src"):
        (tmp_path / folder).mkdir()
    (tmp_path / "src" / "module_of_the_test.py").touch()
    (tmp_path / "configs" / "run.yaml").write_text("pipeline: module_of_the_test.training\n")
    monkeypatch.chdir(tmp_path / "configs")

    with pytest.raises(UsageError, match="there is no module 'module_of_the_test'") as caught:
        import_pipeline(load_spec(Path("run.yaml")))

    assert (caught.value.hint or "").startswith("Set 'source_root: ../src' in the run spec")


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("training.py:trainin", "training.py:training"),
        ("training:trainin", "training:training"),
        ("run.yaml", "training.training"),
    ],
)
def test_a_misspelt_pipeline_is_corrected_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, meant: str
) -> None:
    module = "from zenml import pipeline\n\n@pipeline\ndef training() -> None:\n    pass\n"
    (tmp_path / "training.py").write_text(module)
    (tmp_path / "run.yaml").write_text("pipeline: training.trainin\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "training", raising=False)
    with pytest.raises(UsageError, match="has no 'trainin'") as caught:
        import_pipeline(load_spec(Path(argument)))
    monkeypatch.delitem(sys.modules, "training")
    assert caught.value.hint == f"Did you mean '{meant}'?"


@pytest.mark.parametrize(
    ("name", "kind"), [("load", "it is a step"), ("number", "it is of type 'int'")]
)
def test_what_is_no_pipeline_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    (tmp_path / "no_pipelines.py").write_text(
        "from zenml import step\n\n@step\ndef load() -> int:\n    return 1\n\nnumber = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "no_pipelines", raising=False)
    with pytest.raises(UsageError, match=f"is not a ZenML pipeline, {kind}."):
        import_pipeline(load_spec(Path(f"no_pipelines.py:{name}")))


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("my_project.trainin:flow", "Did you mean 'my_project.training:flow'?"),
        ("my_projet.training:flow", "Did you mean 'my_project.training:flow'?"),
        ("my_projet:flow", "Did you mean 'my_project:flow'?"),
        ("run.yaml", "Did you mean 'my_project.training.flow'?"),
        ("my_project.training_more:flow", "The source root is the nearest folder"),
        ("nothing_like_it:flow", "The source root is the nearest folder"),
    ],
)
def test_a_misspelt_module_is_corrected_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, hint: str
) -> None:
    for name in ("my_project/__init__.py", "my_project/training.py", "my_project/training-more.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "run.yaml").write_text("pipeline: my_project.trainin.flow\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    with pytest.raises(UsageError, match="there is no module") as caught:
        import_pipeline(load_spec(Path(argument)))
    sys.modules.pop("my_project", None)
    assert (caught.value.hint or "").startswith(hint)


def test_an_exit_names_the_main_guard_only_where_a_module_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting.py").write_text("import sys\n\nsys.exit(3)\n")
    (tmp_path / "run.yaml").write_text("pipeline: exiting.training\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = load_spec(tmp_path / "run.yaml")
    with pytest.raises(UsageError, match=r"exiting\.py:3") as imported:
        import_pipeline(spec)
    assert "__main__" in (imported.value.hint or "")
    with (
        pytest.raises(UsageError, match="SystemExit: stop it") as called,
        user_code(spec, "compiling it"),
    ):
        sys.exit("stop it")
    assert "__main__" not in (called.value.hint or "")


def test_each_wrong_setting_of_the_code_has_a_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("pipeline: training.training\n")
    spec = load_spec(tmp_path / "run.yaml")
    with pytest.raises(UsageError) as caught, user_code(spec, "importing 'training'"):
        ModalOrchestratorSettings.model_validate({"gpus": "A100", "timeout": 0})
    first, second = caught.value.message.split("\n")
    of = "in the settings or parameters of the code or the run spec"
    assert first.endswith(f"'timeout', {of}, must be 1 or more, not 0.")
    assert second.endswith(f"'gpus', {of}: unknown setting 'gpus'. Did you mean 'gpu'?")


def test_a_wrong_input_of_a_step_is_named(tmp_path: Path) -> None:
    @step
    def train(epochs: int) -> None:
        pass

    @pipeline
    def training() -> None:
        train(epochs="many")  # type: ignore[arg-type]

    (tmp_path / "run.yaml").write_text("pipeline: training.training\n")
    spec = load_spec(tmp_path / "run.yaml")
    with (
        pytest.raises(UsageError, match="Input validation failed for input 'epochs'"),
        user_code(spec, "compiling it"),
    ):
        training.prepare()
