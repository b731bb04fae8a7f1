"""Pipelines are found without importing a module, and a run spec is written for one."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from modalrun.errors import UsageError
from modalrun.flavor import init_project
from modalrun.flavor.init_project import spec_text
from modalrun.flavor.pipeline_discovery import pipelines
from modalrun.plan.stack import StackDescription
from modalrun.spec.python_pipelines import FoundPipeline, in_file
from modalrun.spec.spec_argument import source_root_of
from modalrun.spec.yaml_source import read_value
from modalrun.zenml_api import process, registration

TRAINING = """
import does_not_exist
from zenml import pipeline

@pipeline(enable_cache=False)
def training(rate: float, epochs: int = 3, *, name: str = "a: b", deep: bool = True, seen=None):
    pass

def not_one():
    pass

if __name__ == "__main__":
    training(0.1)
"""


def test_pipelines_of_a_tree(tmp_path: Path) -> None:
    for name, text in {
        "training.py": TRAINING,
        "package/__init__.py": "import zenml\n@zenml.pipeline\ndef inner(): ...\n",
        "package/deep/more.py": "@pipeline\ndef more(): ...\n",
        "broken.py": "def (",
        "not-a-module.py": "@pipeline\ndef unreachable(): ...\n",
        "tests/test_training.py": "@pipeline\ndef only_a_test(): ...\n",
        ".venv/pyvenv.cfg": "home = /usr\n",
        ".venv/lib/other.py": "@pipeline\ndef of_a_package(): ...\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    found = pipelines(tmp_path)

    assert [one.source for one in found] == [
        "package.deep.more.more",
        "package.inner",
        "training.training",
    ]
    assert found[2].script == "training.py"
    assert found[1].script is None
    assert dict(found[2].parameters) == {
        "rate": "...",
        "epochs": "3",
        "name": '"a: b"',
        "deep": "true",
        "seen": "null",
    }


def test_defaults_are_the_same_values_in_yaml(tmp_path: Path) -> None:
    defaults = r"tab='\t', mark='°', seed=-1, rate=1e-5, no=None"
    (tmp_path / "flow.py").write_text(f"@pipeline\ndef flow({defaults}): ...\n", encoding="utf-8")
    (found,) = pipelines(tmp_path)
    values = {name: read_value(value, "")[0] for name, value in found.parameters}
    assert values == {"tab": "\t", "mark": "°", "seed": -1, "rate": 1e-5, "no": None}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"fraud/__init__.py": ""}, ("fraud.flow.flow", "src")),
        ({}, ("fraud.flow.flow", "src")),
        # Projects that import their modules as 'src.fraud'.
        ({"__init__.py": ""}, ("src.fraud.flow.flow", None)),
        ({"fraud/flow.py": "from src.fraud import x\n"}, ("src.fraud.flow.flow", None)),
    ],
)
def test_modules_of_a_src_layout_are_named_without_src(
    tmp_path: Path, files: dict[str, str], expected: tuple[str, str | None]
) -> None:
    for name, text in {"fraud/flow.py": "", **files}.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(text)
    with (tmp_path / "src/fraud/flow.py").open("a") as file:
        file.write("@pipeline\ndef flow(): ...\n")

    (found,) = pipelines(tmp_path)

    data = yaml.safe_load(spec_text(found, "default", "local", tmp_path, tmp_path))
    assert (data["pipeline"], data.get("source_root")) == expected


def test_pipelines_are_not_looked_for_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="is your home folder") as caught:
        pipelines(tmp_path)
    # It has no option for another one.
    assert caught.value.hint == "Run the command in the folder of the project."


def test_the_source_root_is_where_zenml_was_initialized(tmp_path: Path) -> None:
    inner = tmp_path / "project" / "code"
    inner.mkdir(parents=True)
    assert source_root_of(inner) == inner
    (tmp_path / "project" / ".zen").mkdir()
    assert source_root_of(inner) == tmp_path / "project"


def test_a_run_spec_in_a_folder_of_the_project_names_the_source_root(tmp_path: Path) -> None:
    found = FoundPipeline("training.training", ())
    folder = tmp_path / "configs"
    data = yaml.safe_load(spec_text(found, "default", "local", folder, tmp_path))
    assert data["source_root"] == ".."
    (tmp_path / ".zen").mkdir()
    data = yaml.safe_load(spec_text(found, "default", "local", folder, tmp_path))
    assert "source_root" not in data, "it is found"


@pytest.mark.parametrize("initialized", [False, True])
def test_the_python_path_of_a_src_layout_is_below_the_project(
    tmp_path: Path, *, initialized: bool
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (tmp_path / "src").mkdir()
    if initialized:
        (tmp_path / ".zen").mkdir()
    found = FoundPipeline("training.training", src=tmp_path / "src")
    text = spec_text(found, "default", "local", folder, tmp_path)
    assert yaml.safe_load(text)["source_root"] == "../src"
    instead = "instead of source_root" if initialized else "with source_root: .."
    assert f"#     environment: {{PYTHONPATH: src}}  # {instead}\n" in text


def test_only_modules_of_a_src_layout_are_read(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name in ("data.bin", "absent.py"):
        # As a file that this user may not read.
        assert in_file(tmp_path / "src" / name, tmp_path) == []


@pytest.mark.parametrize("src", [None, "src"])
def test_a_written_run_spec_is_a_run_spec_also_with_its_comments_taken_away(
    tmp_path: Path, src: str | None
) -> None:
    from modalrun.spec.run_spec import load_spec

    (tmp_path / "src").mkdir()
    folder = tmp_path / src if src else None
    found = FoundPipeline("training.training", (("epochs", "3"),), src=folder)
    text = spec_text(found, "my stack", "local", tmp_path, tmp_path)
    path = tmp_path / "modalrun.yaml"
    path.write_text(text)
    spec = load_spec(path)
    assert (spec.pipeline, spec.stack, spec.target) == ("training.training", "my stack", "local")

    whole = "\n".join(
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line
        for line in text.splitlines()[4:]
    )
    path.write_text(whole)
    data = yaml.safe_load(whole)
    assert data["parameters"] == {"epochs": 3}
    assert data["memory"] == "16GiB"
    load_spec(path)


@pytest.mark.parametrize(
    ("step", "call", "name"),
    [
        ("@step", "load()", "load"),
        ("@zenml.step(enable_cache=False)", "other(load())", "load"),
        ("@step", "load(id='first')", "STEP_NAME"),
        ("@step(name='first')", "load()", "STEP_NAME"),
        ("@step", "imported()", "STEP_NAME"),
        ("", "load()", "STEP_NAME"),
    ],
)
def test_the_example_of_a_step_names_one_of_the_pipeline(
    tmp_path: Path, step: str, call: str, name: str
) -> None:
    code = f"{step}\ndef load(): ...\n@step\ndef unused(): ...\n@pipeline\ndef flow(): {call}\n"
    (tmp_path / "flow.py").write_text(code)
    (found,) = pipelines(tmp_path)
    text = spec_text(found, "default", "local", tmp_path, tmp_path)
    assert f"\n#   {name}:\n#     settings:\n" in text


SCRIPT = """
@pipeline
def needs(n: int, *, m: int, k: int = 2): ...
if __name__ == "__main__":
    needs(1, m=2)
"""


@pytest.mark.parametrize(
    ("spec", "following", "script"),
    [
        ("pipeline: mine.needs\nparameters: {n: 1, m: 2}\n", ("run the pipeline", "submit"), True),
        ("pipeline: mine.needs\nparameters: {m: 1}\n", ("set n in a b.yaml, then", "submit"), True),
        ("pipeline: mine.other\n", ("run the pipeline", "submit"), False),
        ("deployment: a-snapshot\n", ("run the pipeline", "submit"), False),
        ("pipelin: mine.needs\n", ("see its mistakes", "plan"), False),
    ],
)
def test_next_commands_for_an_existing_run_spec(
    tmp_path: Path, spec: str, following: tuple[str, str], script: bool
) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    (tmp_path / "below").mkdir()
    path = tmp_path / "a b.yaml"
    path.write_text(spec)

    existing = init_project._read_spec(path)

    assert existing is not None
    words, command = following
    assert init_project._to_run(existing, Path("a b.yaml")) == [
        (words, f"modalrun {command} 'a b.yaml'")
    ]
    # Relative to the current folder.
    run = [("run it as usual", "python ../mine.py")] if script else []
    assert init_project._as_usual(existing, tmp_path / "below", stack="s", active=True) == run


@pytest.mark.parametrize("src", [".", "src"])
@pytest.mark.parametrize("initialized", [False, True])
@pytest.mark.parametrize("active", [False, True])
def test_a_script_in_a_package_needs_a_zenml_project(
    tmp_path: Path, src: str, *, initialized: bool, active: bool
) -> None:
    root = tmp_path / src
    (root / "package").mkdir(parents=True)
    (root / "package" / "mine.py").write_text(SCRIPT)
    if initialized:
        (root / ".zen").mkdir()
    (tmp_path / "a.yaml").write_text(f"pipeline: package.mine.needs\nsource_root: {src}\n")
    existing = init_project._read_spec(tmp_path / "a.yaml")
    assert existing is not None

    found = init_project._as_usual(existing, tmp_path, stack="s", active=active)

    commands = [] if initialized else ["zenml init"]
    commands += [] if initialized and active else ["zenml stack set s"]
    there = "" if src == "." else "cd src && "
    expected = [there + one for one in (*commands, "python -m package.mine")]
    assert [command for _, command in found] == expected


@pytest.mark.parametrize(
    ("stack", "name", "spec", "options"),
    [
        (None, None, "modalrun.yaml", ""),
        (
            "cloud",
            "my dev",
            "conf/run.yaml",
            " --from cloud --name 'my dev' --spec conf/run.yaml",
        ),
    ],
)
def test_the_command_that_names_a_pipeline_keeps_the_options(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stack: str | None,
    name: str | None,
    spec: str,
    options: str,
) -> None:
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(process, "zenml_process", lambda _: nullcontext())
    monkeypatch.setattr(registration, "base_stack", lambda *_: StackDescription("id", "default"))
    monkeypatch.setattr(registration, "register", lambda *_: registration.Registered((), ()))

    done = init_project.initialize(
        tmp_path, pipeline=None, from_stack=stack, target="local", name=name, spec=Path(spec)
    )

    command = f"modalrun init module.function --target local{options}"
    assert done.steps[-1] == (
        f"no run spec: there is no pipeline below this folder; name one: '{command}'",
        False,
    )


@pytest.mark.parametrize(
    ("ignored", "pipeline", "behind"),
    [
        ("other.py", None, False),
        ("local.py", None, True),
        ("flow.py", "flow.flow", True),
    ],
)
def test_modules_that_stay_behind_are_the_first_thing_to_see(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ignored: str,
    pipeline: str | None,
    *,
    behind: bool,
) -> None:
    (tmp_path / "flow.py").write_text("import local\n@pipeline\ndef flow(): ...\n")
    (tmp_path / "local.py").touch()
    (tmp_path / ".gitignore").write_text(f"{ignored}\n")
    monkeypatch.setattr(process, "zenml_process", lambda _: nullcontext())
    monkeypatch.setattr(registration, "base_stack", lambda *_: StackDescription("id", "default"))
    made = registration.Registered((), (), active=True)
    monkeypatch.setattr(registration, "register", lambda *_: made)

    done = init_project.initialize(
        tmp_path,
        pipeline=pipeline,
        from_stack=None,
        target="local",
        name=None,
        spec=Path("a b.yaml"),
    )

    first = [("see the modules that stay behind", "modalrun plan 'a b.yaml'")] * behind
    assert done.next == (*first, ("run the pipeline", "modalrun submit 'a b.yaml'"))


def test_a_missing_run_spec(tmp_path: Path) -> None:
    assert init_project._read_spec(tmp_path / "modalrun.yaml") is None
