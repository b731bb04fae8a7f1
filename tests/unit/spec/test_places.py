"""Short forms of common keys, and where a key in a wrong place belongs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun import DOCS
from modalrun.errors import UsageError
from modalrun.spec.overrides import Override, set_option
from modalrun.spec.places import SHORT_FORMS
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec
from unit.specs import PIPELINE, line_of, mistake, mistakes

Load = Callable[[str], RunSpec]

VALUES = {
    "gpu": ("[H100, A100]", ["H100", "A100"]),
    "cpu": ("4", 4),
    "memory": ("16GB", "16GB"),
    "timeout": ("1h30m", 5400),
    "mode": ("per_step", "per_step"),
    "region": ("us", "us"),
    "max_parallelism": ("2", 2),
    "image": ("{name: slim}", {"name": "slim"}),
    "source_include": ("[a.csv]", ["a.csv"]),
    "environment": ("dev", "dev"),
    "workspace": ("team", "team"),
    "secrets": ("[wandb]", ["wandb"]),
    "volumes": ("{data: /data}", {"data": "/data"}),
}


@pytest.mark.parametrize("short", SHORT_FORMS, ids=".".join)
def test_a_short_form_is_its_long_form(load: Load, short: tuple[str, ...]) -> None:
    text, value = VALUES[short[-1]]
    line = f"{short[-1]}: {text}\n" if len(short) == 1 else f"modal: {{{short[-1]}: {text}}}\n"
    layer = load(PIPELINE + line).layers[Origin.SPEC_PIPELINE]
    assert {**layer.settings, **layer.resources} == {SHORT_FORMS[short][-1]: value}
    with_other_name = "settings: {orchestrator.modalrun: {cloud: aws}}\n"
    assert load(PIPELINE + line + with_other_name).layers[Origin.SPEC_PIPELINE].get("cloud")


@pytest.mark.parametrize(
    "text",
    [
        "gpu: T4\nsettings: {orchestrator: {gpu: T4}}\n",
        "timeout: 2h\nsettings: {orchestrator: {timeout: 7200}}\n",
        "cpu: 2\nsettings: {resources: {cpu_count: 2.0}}\n",
        "modal: {volumes: {data: /data}}\nsettings: {orchestrator: {volumes: {data: /data/}}}\n",
    ],
)
def test_both_forms_alike(load: Load, text: str) -> None:
    assert load(PIPELINE + text).has_settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "gpu: T4\nsettings: {orchestrator: {gpu: L4}}\n",
            "'gpu' is given twice: 'T4' here and 'L4' under 'settings.orchestrator.gpu'.",
        ),
        (
            "memory: 1GB\nsettings: {resources: {memory: 2GB}}\n",
            "'memory' is given twice: '1GB' here and '2GB' under 'settings.resources.memory'.",
        ),
        (
            "timeout: 2h\nsettings: {orchestrator.modalrun: {timeout: 1h}}\n",
            "'2h' here and '1h' under 'settings.orchestrator.modalrun.timeout'.",
        ),
    ],
)
def test_both_forms_differ(tmp_path: Path, text: str, problem: str) -> None:
    error = mistake(tmp_path, PIPELINE + text)
    assert line_of(error, tmp_path) == 2
    assert problem in error.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("timeout: soon", "'timeout' must be a whole number of seconds"),
        ("gpu: [T4, 5]", "'gpu[1]' must be a string, not 5"),
        (
            "modal: {volumes: {2024: /data}}",
            "'modal.volumes.2024': the key must be a string, not 2024 (put quotes around text)",
        ),
        ("cpu: many", "'cpu' must be a number, not 'many'"),
        ("mode: fast", "'mode' must be 'pipeline' or 'per_step'"),
        ("image: {from: x}", "unknown key 'from' under 'image'"),
    ],
)
def test_a_mistake_names_the_key_as_it_is_written(tmp_path: Path, text: str, problem: str) -> None:
    error = mistake(tmp_path, f"{PIPELINE}{text}\n")
    assert line_of(error, tmp_path) == 2
    assert problem in error.message


def test_short_forms_with_settings_that_are_no_mapping(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "gpu: T4\nsettings: {orchestrator: T4}\n")
    assert "'settings.orchestrator' must be a mapping" in error.message


def test_an_anchor_is_not_changed_for_others(load: Load) -> None:
    text = "gpu: T4\nsettings: &s {orchestrator: {timeout: 60}}\nsteps: {a: {settings: *s}}\n"
    spec = load(PIPELINE + text)
    assert spec.layers[Origin.SPEC_PIPELINE].settings == {"gpu": "T4", "timeout": 60}
    assert spec.step_layers["a"][Origin.SPEC_STEP].settings == {"timeout": 60}


def test_short_forms_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE + "gpu: T4\ntimeout: 1h\n")
    options = ["gpu=L4", "cpu=3", "modal={environment: dev, workspace: w}"]
    spec = load_spec(path, overrides=[set_option(text) for text in options])
    layer = spec.layers[Origin.COMMAND_LINE]
    assert layer.settings == {"gpu": "L4", "modal_environment": "dev", "workspace": "w"}
    assert layer.resources == {"cpu_count": 3}
    flag = Override("--gpu", ("settings", "orchestrator", "gpu"), "A100")
    with pytest.raises(UsageError, match="--set gpu and --gpu both set"):
        load_spec(path, overrides=[set_option("gpu=L4"), flag])
    with pytest.raises(UsageError, match="--set modal: unknown key 'x' under 'modal'"):
        load_spec(path, overrides=[set_option("modal={x: 1}")])


# A key in a wrong place.


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("settings: {cpu: 4}", "'cpu' is 'settings: resources: cpu_count'."),
        ("settings: {gpu: T4}", "'gpu' is 'settings: orchestrator: gpu'."),
        (
            "settings: {orchestrator: {cpu: 4}}",
            "'cpu' is 'settings: resources: cpu_count'.",
        ),
        (
            "settings: {orchestrator: {memory: 4GB}}",
            "'memory' is 'settings: resources: memory'.",
        ),
        ("settings: {resources: {timeout: 5}}", "'timeout' is 'settings: orchestrator: timeout'."),
        ("settings: {resources: {cpu: 5}}", "Did you mean 'cpu_count'?"),
        (
            "steps: {a: {gpu: T4}}",
            "'gpu' is 'steps: a: settings: orchestrator: gpu'.",
        ),
        ("steps: {a: {cpus: 4}}", "'cpus' is 'steps: a: settings: resources: cpu_count'."),
        ("steps: {a: {mode: x}}", "'mode' is 'mode' at the top level."),
        ("requirements: [torch]", "'requirements' is 'settings: docker: requirements'."),
        ("requirments: [torch]", "'requirments' is 'settings: docker: requirements'."),
        ("gpu_count: 2", "'gpu_count' is 'settings: resources: gpu_count'."),
        ("retries: 2", "'retries' is 'retry: max_retries'."),
        ("steps: {a: {retries: 2}}", "'retries' is 'steps: a: retry: max_retries'."),
        ("params: {a: 1}", "Did you mean 'parameters'?"),
        ("steps: {a: {enable_caching: false}}", "Did you mean 'enable_cache'?"),
        ("GPU: T4", "Did you mean 'gpu'?"),
        ("max-parallelism: 2", "Did you mean 'max_parallelism'?"),
        ("settings: {parameters: {}}", "'parameters' is 'parameters' at the top level."),
        ("steps: {a: {run_name: x}}", "'run_name' is 'run_name' at the top level."),
        (
            "experiment_tracker: mlflow",
            "'experiment_tracker' is 'steps: STEP: experiment_tracker'.",
        ),
        ("steps: {a: {settings: {runtime: inline}}}", "'runtime' is 'steps: a: runtime'."),
        ("settings: {modal: {gpu: T4}}", "'modal' is 'modal' at the top level."),
        ("steps: {a: {modal: {secrets: [b]}}}", "'modal' is 'modal' at the top level."),
        ("settings: {x-base: 1}", "Keys that begin with 'x-' stand at the top level."),
    ],
)
def test_the_right_place(tmp_path: Path, text: str, hint: str) -> None:
    assert mistake(tmp_path, f"{PIPELINE}{text}\n").hint == hint


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("gpu_wait=6s", "settings.orchestrator.gpu_wait"),
        ("settings.orchestrator.memory=4GB", "settings.resources.memory"),
        ("settings.resources={timeout: 5}", "settings.orchestrator.timeout"),
        ("steps.a.gpu=T4", "steps.a.settings.orchestrator.gpu"),
        ('steps."a.b".retries=2', 'steps."a.b".retry.max_retries'),
        ("steps.a.mode=per_step", "settings.orchestrator.mode"),
        ("requirments=[torch]", "settings.docker.requirements"),
        ("experiment_tracker=mlflow", "steps.STEP.experiment_tracker"),
        ("steps.a.settings.runtime=inline", "steps.a.runtime"),
    ],
)
def test_the_right_flag(tmp_path: Path, text: str, flag: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE)
    with pytest.raises(UsageError) as raised:
        load_spec(path, overrides=[set_option(text)])
    assert raised.value.hint == f"Use '--set {flag}=...'."
    set_option(f"{flag}=1")


@pytest.mark.parametrize("key", ["cpu_type", "tpu", "group_by", "stages", "machine"])
def test_no_wrong_guess(tmp_path: Path, key: str) -> None:
    assert "Did you mean" not in str(mistake(tmp_path, f"{PIPELINE}{key}: 1\n").hint)


def test_the_valid_keys_are_named_once(tmp_path: Path) -> None:
    text = "zzzz: 1\nyyyy: 1\nsteps: {a: {zzzz: 1}}\nmodal: {zzzz: 1, yyyy: 1}\n"
    error = mistakes(tmp_path, PIPELINE + text)
    assert error.message.count(f"{DOCS}/configuration.md lists the valid keys.") == 1
    assert error.message.count("Valid keys: environment, secrets, volumes, workspace.") == 1


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("zzzz: 1", "configuration"),
        ("steps: {a: {zzzz: 1}}", "configuration"),
        ("settings: {orchestrator: {zzzz: 1}}", "configuration"),
        ("settings: {docker: {zzzz: 1}}", "images"),
    ],
)
def test_many_valid_keys_are_in_the_docs(tmp_path: Path, text: str, page: str) -> None:
    hint = mistake(tmp_path, f"{PIPELINE}{text}\n").hint
    assert hint == f"{DOCS}/{page}.md lists the valid keys."


def test_many_valid_keys_are_in_the_docs_for_a_flag_too(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(PIPELINE)
    with pytest.raises(UsageError) as raised:
        load_spec(path, overrides=[set_option("foo.bar=1")])
    assert raised.value.hint == f"{DOCS}/configuration.md lists the valid keys."


# Keys for anchors.


def test_keys_that_begin_with_x_hold_anchors(load: Load) -> None:
    text = "x-base: &base {gpu: T4}\nx-n: [1]\nsteps: {a: {settings: {orchestrator: *base}}}\n"
    spec = load(PIPELINE + text)
    assert spec.step_layers["a"][Origin.SPEC_STEP].settings == {"gpu": "T4"}
    assert not {key for key in spec.run_configuration if key.startswith("x-")}


def test_resources_at_the_top_level(tmp_path: Path) -> None:
    error = mistake(tmp_path, PIPELINE + "resources: {cpu_count: 3}\n")
    assert error.hint == "'resources' is 'settings: resources'."
