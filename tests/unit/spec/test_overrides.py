"""Keys that the command line sets."""

from pathlib import Path

import pytest

from modalrun.cli.options import _given
from modalrun.errors import UsageError
from modalrun.spec.overrides import Override, command_line, param_option, set_option
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec


def load(tmp_path: Path, *overrides: Override, text: str = "") -> RunSpec:
    path = tmp_path / "run.yaml"
    path.write_text(f"pipeline: a.b\n{text}")
    return load_spec(path, overrides=overrides)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("settings.orchestrator.gpu=H100", ("settings", "orchestrator", "gpu"), "H100"),
        ("settings.orchestrator.modal.gpu=T4", ("settings", "orchestrator.modal", "gpu"), "T4"),
        ("modal.environment=dev", ("modal", "environment"), "dev"),
        ("target=local", ("target",), "local"),
        ("parameters.rate=0.5", ("parameters", "rate"), 0.5),
        ("tags=[a, b]", ("tags",), ["a", "b"]),
        ("parameters.word=a=b", ("parameters", "word"), "a=b"),
        ("parameters.day=", ("parameters", "day"), None),
        ("steps.a.b.enable_cache=no", ("steps", "a.b", "enable_cache"), False),
        ("steps.a.retry.retry.delay=5", ("steps", "a", "retry", "retry", "delay"), 5),
        ('steps."a.retry".retry.delay=5', ("steps", "a.retry", "retry", "delay"), 5),
        ("timeout= 2h # long", ("timeout",), "2h"),
        ("parameters.tag=v #2", ("parameters", "tag"), "v #2"),
        ("environment.A=v #2", ("environment", "A"), "v #2"),
        ("steps.a.parameters.tag=@x", ("steps", "a", "parameters", "tag"), "@x"),
        ("steps.train={}", ("steps", "train"), {}),
        ("steps={train: {enable_cache: no}}", ("steps",), {"train": {"enable_cache": False}}),
    ],
)
def test_set(text: str, path: tuple[str, ...], value: object) -> None:
    found = set_option(text)
    assert (found.path, found.value) == (path, value)
    assert found.flag == f"--set {text.partition('=')[0]}"


@pytest.mark.parametrize(
    "text",
    ["gpu", "=1", 'a."b=1', '"a"b=1', "steps..a=1", "settings..gpu=1", ".a=1", "a=[", "a=*b"],
)
def test_not_a_set(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        set_option(text)


def test_param() -> None:
    assert param_option("epochs=3") == Override("--param epochs", ("parameters", "epochs"), 3)
    for text in ("epochs", "=3"):
        with pytest.raises(UsageError, match="a name and a value"):
            param_option(text)
    with pytest.raises(UsageError, match="has no dot") as caught:
        param_option("m.lr=3")
    assert "'--set parameters.m.lr=3'" in (caught.value.hint or "")


def test_two_flags_for_one_key() -> None:
    gpu = Override("--gpu", ("settings", "orchestrator", "gpu"), "T4")
    for path in (gpu.path, gpu.path[:2], (*gpu.path, "x")):
        with pytest.raises(UsageError, match="--gpu and --set both set"):
            command_line([gpu, Override("--set", path, 1)])


def test_every_flag() -> None:
    given = _given(
        gpu="H100, A100",
        cpu=2.0,
        memory="1GB",
        timeout="5m",
        region="us",
        cloud="aws",
        env="dev",
        sync=False,
        max_parallelism=3,
        name="n",
        param=["a=1"],
        no_cache=True,
        set_=["tags=[x]"],
    )
    assert {o.flag: o.value for o in given.overrides} == {
        "--gpu": ["H100", "A100"],
        "--cpu": 2.0,
        "--memory": "1GB",
        "--timeout": "5m",
        "--region": "us",
        "--cloud": "aws",
        "--env": "dev",
        "--async": False,
        "--max-parallelism": 3,
        "--name": "n",
        "--param a": 1,
        "--no-cache": False,
        "--set tags": ["x"],
    }
    assert _given().overrides == ()


@pytest.mark.parametrize("text", ["A100,T4", " A100 , T4", '["A100","T4"]', "[A100, 'T4']"])
def test_several_names_of_a_flag(text: str) -> None:
    given = _given(gpu=text, region=text)
    assert [one.value for one in given.overrides] == [["A100", "T4"], ["A100", "T4"]]


def test_half_a_list_of_a_flag(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"""^--gpu: .*'\["A100"' is not a name"""):
        load(tmp_path, *_given(gpu='["A100","T4"').overrides)


@pytest.mark.parametrize("key", ["gpu", "region"])
@pytest.mark.parametrize("text", ["A100,T4", "[A100", '"A100"'])
def test_a_list_is_not_one_name(tmp_path: Path, key: str, text: str) -> None:
    with pytest.raises(UsageError, match="is not a name; write several as") as caught:
        load(tmp_path, text=f"{key}: '{text}'\n")
    assert f"'{text}'" in caught.value.message


@pytest.mark.parametrize("text", ["2h", "7200"])
def test_a_timeout_of_the_command_line_is_a_duration(tmp_path: Path, text: str) -> None:
    spec = load(tmp_path, *_given(timeout=text).overrides)
    assert spec.layers[Origin.COMMAND_LINE].settings == {"timeout": 7200}
    with pytest.raises(UsageError, match=r"^--timeout: .*'90s', '2h' or '1h30m', not '2 hours'"):
        load(tmp_path, *_given(timeout="2 hours").overrides)


def test_overrides_have_an_origin_of_their_own(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        set_option("settings.orchestrator.gpu=H100"),
        set_option("steps.train.settings.resources.memory=1GB"),
        set_option("parameters.a=2"),
        set_option("target=local"),
        text="parameters: {a: 1, b: 1}\nsettings: {orchestrator: {gpu: T4, timeout: 5}}\n",
    )
    assert spec.layers[Origin.COMMAND_LINE].settings == {"gpu": "H100"}
    assert spec.layers[Origin.SPEC_PIPELINE].settings == {"gpu": "T4", "timeout": 5}
    assert spec.step_layers["train"][Origin.COMMAND_LINE_STEP].resources == {"memory": "1GB"}
    assert spec.run_configuration["parameters"] == {"a": 2, "b": 1}
    assert spec.target == "local"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (set_option("pipeline=x"), "'x' is not a source"),
        (set_option("deployment=d"), "both 'pipeline' and 'deployment' are given."),
        (set_option("source_root=nope"), "there is no folder"),
        (Override("--source-root", ("source_root",), "/nope"), "there is no folder /nope."),
        (Override("--source-root", ("source_root",), "~no-user-0"), "the home folder of"),
    ],
)
def test_a_flag_that_replaces_a_line_of_the_file_is_named_instead(
    tmp_path: Path, override: Override, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, override, text="source_root: .\n")
    assert caught.value.message.startswith(f"{override.flag}: ")
    assert problem in caught.value.message
    assert (caught.value.hint is None) == (override.flag == "--source-root")


def test_all_steps_in_one_flag(tmp_path: Path) -> None:
    text = "{train: {enable_cache: no, settings: {orchestrator: {gpu: T4}}}}"
    spec = load(tmp_path, set_option(f"steps={text}"))
    assert spec.run_configuration["steps"] == {"train": {"enable_cache": False}}
    assert spec.step_layers["train"][Origin.COMMAND_LINE_STEP].settings == {"gpu": "T4"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings.orchestrator.gqu=1", "--set settings.orchestrator.gqu: unknown key 'gqu'"),
        ("pipelin=a.b", "--set pipelin: unknown key 'pipelin'"),
        ("steps.a.setings=1", "--set steps.a.setings: unknown key 'setings'"),
        ("settings.resources.gpu_count=-1", "--set settings.resources.gpu_count: 'settings.resour"),
        ("settings.orchestrator=T4", "--set settings.orchestrator: 'settings.orchestrator' must"),
    ],
)
def test_a_wrong_override_names_its_flag(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, set_option(text))
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("text", ["gpu=null", "gpu=", "settings.orchestrator.timeout=~"])
def test_an_empty_value_is_refused_as_it_would_change_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="an empty value takes nothing back"):
        set_option(text)


def test_an_argument_may_be_null() -> None:
    assert set_option("parameters.day=null").value is None
    assert set_option("steps.train.parameters.day=null").value is None
    assert param_option("day=null").value is None


def test_the_place_of_a_key_is_its_flag_or_its_line(tmp_path: Path) -> None:
    spec = load(tmp_path, set_option("stack=x"), text="stack: y\ntarget: local\n")
    assert spec.where(("stack",)) == "--set stack"
    assert spec.where(("target",)).endswith("run.yaml:3")


def test_the_command_line_is_above_a_steps_own_values_in_the_file(tmp_path: Path) -> None:
    text = (
        "steps:\n  train: {enable_cache: true, retry: {max_retries: 2, delay: 3},"
        " parameters: {rate: 1}}\n  load: {}\n"
    )
    given = _given(
        no_cache=True,
        param=["rate=2"],
        set_=["retry.max_retries=5", "steps.load.enable_cache=true"],
    )
    spec = load(tmp_path, *given.overrides, text=text)
    assert spec.run_configuration["enable_cache"] is False
    assert spec.run_configuration["steps"] == {
        "train": {
            "enable_cache": False,
            "retry": {"max_retries": 5, "delay": 3},
            "parameters": {"rate": 1},
        },
        "load": {"enable_cache": True},
    }, "of the command line, a step is above the pipeline"


@pytest.mark.parametrize("text", ["false", "n"])
def test_a_text_for_a_flag_is_what_zenml_makes_of_it(tmp_path: Path, text: str) -> None:
    spec = load(tmp_path, text=f"enable_cache: '{text}'\nsteps: {{a: {{enable_cache: 'yes'}}}}\n")
    assert spec.run_configuration["enable_cache"] is False
    assert spec.run_configuration["steps"]["a"]["enable_cache"] is True


def test_a_number_that_people_read_as_another_one_has_a_note(tmp_path: Path) -> None:
    text = (
        "timeout: 2:00\nmax_parallelism: 010\nx-own: {a: 010}\nparameters: {a: 010}\n"
        "enable_cache: yes\ncpu: 1_0\nextra: {a: 1:30}\n"
    )
    notes = load(tmp_path, text=text).notes
    place = tmp_path / "run.yaml"
    quotes = "(put quotes around text)"
    assert notes == (
        f"{place}:2: 'timeout' is 2:00, which YAML reads as 120 {quotes}",
        f"{place}:3: 'max_parallelism' is 010, which YAML reads as 8 {quotes}",
    )


def test_a_command_line_gives_what_has_a_value_in_it() -> None:
    given = command_line([set_option("settings.orchestrator={gpu: T4}")])
    assert given.gives(("settings", "orchestrator", "gpu"))
    assert not given.gives(("settings", "orchestrator", "source_include"))
    assert not given.gives(("settings", "orchestrator", "gpu", "type"))


def test_a_mapping_that_is_an_argument_is_replaced_as_a_whole(tmp_path: Path) -> None:
    text = (
        "parameters: {d: {k: 1, w: 2}, e: {k: 1}, f: {k: 1}}\n"
        "steps: {train: {parameters: {d: {k: 1}, e: 2}}}\n"
    )
    given = _given(
        param=["d={z: 3}", "e={}"], set_=["parameters.f.z=4", "steps.train.parameters.d={z: 5}"]
    )
    found = load(tmp_path, *given.overrides, text=text).run_configuration
    assert found["parameters"] == {"d": {"z": 3}, "e": {}, "f": {"k": 1, "z": 4}}
    assert found["steps"] == {"train": {"parameters": {"d": {"z": 5}, "e": 2}}}
