"""What a command line may name in place of a YAML file."""

from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.spec.overrides import Override, param_option, set_option
from modalrun.spec.run_spec import RunSpec, load_spec, target_of_spec
from modalrun.spec.spec_argument import default_spec


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        *("training.py", "package/__init__.py", "package/inner.py", "src/alone.py"),
        "modalrun.yml",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(argument: str, *overrides: Override) -> RunSpec:
    return load_spec(Path(argument), overrides=overrides)


@pytest.mark.parametrize(
    ("argument", "pipeline", "root"),
    [
        ("training.py:training", "training.training", "."),
        ("./training.py:training", "training.training", "."),
        ("package/inner.py:training", "package.inner.training", "."),
        ("package/__init__.py:training", "package.training", "."),
        ("src/alone.py:training", "alone.training", "src"),
        ("package.inner:training", "package.inner.training", "."),
        ("training:training", "training.training", "."),
    ],
)
def test_a_pipeline(project: Path, argument: str, pipeline: str, root: str) -> None:
    for named in {argument, argument.replace("./", f"{project}/")}:
        spec = load(named, param_option("rate=0.2"))
        assert (spec.pipeline, spec.source_root) == (pipeline, project / root)
        assert spec.run_configuration == {"parameters": {"rate": 0.2}}


@pytest.mark.parametrize(
    ("line", "pipeline", "root"),
    [
        ("from src.steps import load", "src.alone.training", "."),
        ("import src.steps", "src.alone.training", "."),
        ("from src import steps", "src.alone.training", "."),
        ("from . import steps", "alone.training", "src"),
        ("from steps import load", "alone.training", "src"),
        # Of an installed package that is called as the folder.
        ("from src.absent import load", "alone.training", "src"),
        ("not Python", "alone.training", "src"),
    ],
)
def test_a_file_is_imported_from_the_folder_that_its_own_imports_need(
    project: Path, line: str, pipeline: str, root: str
) -> None:
    (project / "src" / "steps.py").touch()
    (project / "src" / "alone.py").write_text(f"{line}\n")
    spec = load("src/alone.py:training")
    assert (spec.pipeline, spec.source_root) == (pipeline, project / root)


def test_a_folder_that_no_module_can_name_is_no_package(project: Path) -> None:
    for name in ("__init__.py", "training.py"):
        (project / "my-project").mkdir(exist_ok=True)
        (project / "my-project" / name).touch()
    spec = load("my-project/training.py:training")
    assert (spec.pipeline, spec.source_root) == ("training.training", project / "my-project")


def test_a_zenml_repository_is_the_source_root(project: Path) -> None:
    (project / ".zen").mkdir()
    spec = load("src/alone.py:training")
    assert (spec.pipeline, spec.source_root) == ("src.alone.training", project)


def test_a_folder_of_the_repository_that_is_no_module(project: Path) -> None:
    (project / ".zen").mkdir()
    (project / "my-project").mkdir()
    (project / "my-project" / "training.py").touch()
    with pytest.raises(
        UsageError, match=r"in the folder 'my-project' of the source root"
    ) as caught:
        load("my-project/training.py:training")
    assert f"'--source-root {project}/my-project'" in (caught.value.hint or "")
    (project / "my project").mkdir()
    (project / "my project" / "training.py").touch()
    with pytest.raises(UsageError) as caught:
        load("my project/training.py:training")
    assert f"""'--source-root "{project}/my project"'""" in (caught.value.hint or "")
    root = Override("--source-root", ("source_root",), str(project / "my-project"))
    assert load("my-project/training.py:training", root).pipeline == "training.training"


def test_the_source_root_of_the_command_line_decides_the_module(project: Path) -> None:
    root = Override("--source-root", ("source_root",), str(project))
    spec = load("src/alone.py:training", root)
    assert (spec.pipeline, spec.source_root) == ("src.alone.training", project)
    elsewhere = Override("--source-root", ("source_root",), str(project / "package"))
    with pytest.raises(UsageError, match="not below the source root"):
        load("src/alone.py:training", elsewhere)


@pytest.mark.parametrize(
    ("text", "pipeline", "root"),
    [("..", "src.alone.training", "."), (".", "alone.training", "src")],
)
def test_a_source_root_that_is_set_is_relative_to_what_is_submitted(
    project: Path, text: str, pipeline: str, root: str
) -> None:
    spec = load("src/alone.py:training", set_option(f"source_root={text}"))
    assert (spec.pipeline, spec.source_root) == (pipeline, project / root)


def test_a_source_root_that_is_none(project: Path) -> None:
    with pytest.raises(UsageError, match="'source_root' must be a string, not 2024"):
        load("training.py:training", set_option("source_root=2024"))
    with pytest.raises(UsageError) as caught:
        load("package.inner:training", set_option("source_root=absent"))
    assert "there is no folder" in caught.value.message
    assert f"relative to {project}; '--source-root FOLDER'" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("argument", "problem", "hint"),
    [
        ("training.py", "training.py is Python", "'training.py:training'"),
        ("absent.py:training", "There is no file absent.py.", "Check the path."),
        ("trainin.py:training", "There is no file trainin.py.", "mean 'training.py:training'?"),
        ("packag/iner.py:x", "There is no file packag/iner.py.", "mean 'package/inner.py:x'?"),
        ("trainin.py", "There is no file trainin.py.", "mean 'training.py'?"),
        ("packag", "There is no file packag.", "mean 'package'?"),
        ("modalrn.yaml", "There is no file modalrn.yaml.", "mean 'modalrun.yml'?"),
        ("training.py:", "names no pipeline", "'training.py:training'"),
        ("training.py:a b", "names no pipeline", "'training.py:training'"),
        ("my-module:training", "names no pipeline", "letters, digits"),
        ("package.inner.training", "no file package.inner.training", "'package.inner:training'"),
        ("absent.yaml", "no file absent.yaml", ""),
        ("absent.py", "no file absent.py", "Check the path."),
        ("nothing", "no file nothing", "'modalrun submit training.py:training'"),
    ],
)
def test_what_is_neither(argument: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(argument)
    assert problem in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("argument", "file"),
    [
        ("training.py", "training.py"),
        ("training", "training.py"),
        ("package/inner.py", "package/inner.py"),
        ("package.inner", "package/inner.py"),
    ],
)
def test_python_without_a_name_is_answered_with_its_pipelines(
    project: Path, argument: str, file: str
) -> None:
    (project / file).write_text("@pipeline\ndef one() -> None: ...\n")
    with pytest.raises(UsageError, match="is Python, not a run spec") as caught:
        load(argument)
    assert caught.value.hint == f"Name its pipeline: '{argument}:one'."
    with (project / file).open("a") as more:
        more.write("\n\n@pipeline(name='x')\ndef two() -> None: ...\n")
    with pytest.raises(UsageError) as caught:
        load(argument)
    two = f"'{argument}:one', '{argument}:two'"
    assert caught.value.hint == f"Name one of its pipelines: {two}."


@pytest.mark.parametrize("name", ["run.yaml", "run.yml", "absent.yaml", "deployment.json"])
def test_a_file_that_names_its_pipeline_takes_no_name(project: Path, name: str) -> None:
    (project / "run.yaml").write_text("pipeline: training.training\n")
    with pytest.raises(UsageError, match="takes no ':training'") as caught:
        load(f"{name}:training")
    assert f"'modalrun submit {name}' runs its pipeline." in (caught.value.hint or "")


def test_a_module_may_be_named_yaml(project: Path) -> None:
    (project / "package" / "yaml.py").touch()
    assert load("package.yaml:training").pipeline == "package.yaml.training"


def test_a_file_with_a_colon_in_its_name_is_a_run_spec(project: Path) -> None:
    (project / "run:1.yaml").write_text("pipeline: a.b\n")
    assert load("run:1.yaml").pipeline == "a.b"


def test_mistakes_name_the_argument() -> None:
    error = load("training.py:training").error(("pipeline",), "no such pipeline.")
    assert error.message == "training.py:training: no such pipeline."


def test_the_run_spec_of_the_folder(project: Path) -> None:
    with pytest.raises(UsageError, match=r"no modalrun\.yaml or run\.yaml"):
        default_spec(Path())
    (project / "run.yaml").touch()
    assert default_spec(Path()) == Path("run.yaml")
    (project / "modalrun.yaml").touch()
    with pytest.raises(UsageError, match=r"There are modalrun\.yaml and run\.yaml"):
        default_spec(Path())
    (project / "run.yaml").unlink()
    assert default_spec(Path()) == Path("modalrun.yaml")


def test_a_folder_stands_for_its_run_spec(project: Path) -> None:
    (project / "configs").mkdir()
    with pytest.raises(UsageError, match="The folder configs has no") as caught:
        load("configs")
    assert "Name a run spec" in (caught.value.hint or "")
    (project / "configs" / "run.yaml").write_text("pipeline: a.b\ntarget: local\n")
    spec = load("configs/")
    assert (spec.pipeline, spec.source.path) == ("a.b", Path("configs/run.yaml"))
    (project / "configs" / "run.yaml").write_text("target: local\n")
    assert target_of_spec(Path("configs")) == "local"
