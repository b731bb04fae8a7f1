"""Precedence: the strongest place wins, and every value has an origin."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.model import RUN_SANDBOX, Plan
from modalrun.plan.planner import make_plan
from modalrun.run.run_plan import PlannedStep
from modalrun.spec.fields import FIELD_NAMES
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, Value, flatten, resolve

PIPELINE_PLACES = (
    Origin.COMMAND_LINE,
    Origin.SPEC_PIPELINE,
    Origin.CODE_PIPELINE,
    Origin.COMPONENT,
)
STEP_PLACES = (Origin.COMMAND_LINE_STEP, Origin.SPEC_STEP, Origin.CODE_STEP)

GPUS = st.sampled_from(["T4", "A100", "A100:2", "H100"]) | st.just(["H100", "A100"])
settings = st.fixed_dictionaries(
    {},
    optional={
        "gpu": GPUS,
        "timeout": st.integers(1, 86_400),
        "region": st.sampled_from(["us", "eu"]),
        "cloud": st.sampled_from(["aws", "gcp"]),
        "secrets": st.lists(st.sampled_from(["a", "b"])),
        "volumes": st.dictionaries(st.sampled_from(["v", "w"]), st.sampled_from(["/a", "/b"])),
    },
)
resources = st.fixed_dictionaries(
    {},
    optional={
        "gpu_count": st.integers(0, 4),
        "cpu_count": st.integers(1, 8),
        "memory": st.sampled_from(["1GB", "2GiB"]),
    },
)
written = st.builds(SettingsLayer, settings, resources)
pipelines = st.dictionaries(st.sampled_from(PIPELINE_PLACES), written)
steps = st.dictionaries(st.sampled_from(STEP_PLACES), written)


def plan(deployment: Deployment) -> Plan:
    return make_plan(
        deployment,
        target="local",
        source_root=None,  # type: ignore[arg-type]
        python_version="3.11",
        engine_packages=(),
    )


def deployment(pipeline: Layers, *own: Layers, mode: str = "per_step") -> Deployment:
    top = pipeline.get(Origin.CODE_PIPELINE, SettingsLayer())
    pipeline = {
        **pipeline,
        Origin.CODE_PIPELINE: SettingsLayer({**top.settings, "mode": mode}, top.resources),
    }
    return Deployment(
        "p",
        tuple(CompiledStep(PlannedStep(f"s{i}"), places) for i, places in enumerate(own)),
        pipeline,
    )


def test_the_order() -> None:
    assert sorted(Origin) == [
        Origin.COMMAND_LINE_STEP,
        Origin.COMMAND_LINE,
        Origin.SPEC_STEP,
        Origin.SPEC_PIPELINE,
        Origin.CODE_STEP,
        Origin.CODE_PIPELINE,
        Origin.COMPONENT,
        Origin.DEFAULT,
    ]
    assert len({origin.label for origin in Origin}) == len(Origin)


@pytest.mark.parametrize("name", ["timeout", "cloud"])
def test_the_strongest_place_wins(name: str) -> None:
    values: dict[str, list[Any]] = {
        "timeout": [10, 20, 30, 40, 50, 60, 70],
        "cloud": ["a", "b", "c", "d", "e", "f", "g"],
    }
    places = [
        Origin.COMMAND_LINE_STEP,
        Origin.COMMAND_LINE,
        Origin.SPEC_STEP,
        Origin.SPEC_PIPELINE,
        Origin.CODE_STEP,
        Origin.CODE_PIPELINE,
        Origin.COMPONENT,
    ]
    said = {
        place: SettingsLayer({name: value})
        for place, value in zip(places, values[name], strict=True)
    }
    for strongest in places:
        left = {p: w for p, w in said.items() if p >= strongest}
        pipeline = {p: w for p, w in left.items() if p not in STEP_PLACES}
        own = {p: w for p, w in left.items() if p in STEP_PLACES}
        made = plan(deployment({**pipeline}, own))
        sandbox = made.steps[0].sandbox
        assert sandbox is not None
        # The run's timeout is the bound of a step's.
        expected = values[name][places.index(strongest)]
        if name == "timeout":
            expected = min(expected, made.run_sandbox.timeout)
        assert getattr(sandbox, name) == expected
        assert made.sandbox_origins["s0"][name].source == strongest.label


def test_volumes_join_by_name_and_the_stronger_path_wins() -> None:
    found = resolve(
        "volumes",
        {
            Origin.CODE_PIPELINE: SettingsLayer({"volumes": {"data": "/a", "models": "/m"}}),
            Origin.SPEC_STEP: SettingsLayer({"volumes": {"data": "/b"}}),
        },
    )
    assert found == Value({"data": "/b", "models": "/m"}, Origin.SPEC_STEP, "run spec, step")


def test_lists_are_replaced() -> None:
    found = resolve(
        "secrets",
        {
            Origin.CODE_PIPELINE: SettingsLayer({"secrets": ["a"]}),
            Origin.COMMAND_LINE: SettingsLayer({"secrets": ["b"]}),
        },
    )
    assert found is not None
    assert found.value == ["b"]


def test_a_gpu_count_of_a_stronger_place_beats_the_count_in_a_type() -> None:
    below = SettingsLayer({"gpu": "A100:2"})
    flat = flatten(
        {Origin.CODE_PIPELINE: below, Origin.SPEC_PIPELINE: SettingsLayer({}, {"gpu_count": 4})}
    )
    assert (flat.get("gpu"), flat.get("gpu_count")) == ("A100", 4)


def test_a_count_in_a_type_beats_a_gpu_count_of_a_weaker_place() -> None:
    below = SettingsLayer({"gpu": "T4"}, {"gpu_count": 2})
    flat = flatten(
        {Origin.CODE_PIPELINE: below, Origin.COMMAND_LINE: SettingsLayer({"gpu": "A100:4"})}
    )
    assert (flat.get("gpu"), flat.get("gpu_count")) == ("A100", 4)
    assert flat.labels["gpu_count"] == "command line"


def test_the_command_line_can_make_every_step_a_cpu_step() -> None:
    made = plan(
        deployment(
            {Origin.COMMAND_LINE: SettingsLayer({}, {"gpu_count": 0})},
            {Origin.CODE_STEP: SettingsLayer({"gpu": "A100"}, {"gpu_count": 2})},
            {Origin.CODE_STEP: SettingsLayer({"gpu": "A100"})},
        )
    )
    assert [s.sandbox.resources.gpu for s in made.steps if s.sandbox] == [None, None]


@given(
    pipeline=pipelines,
    own=st.lists(steps, max_size=3),
    mode=st.sampled_from(["pipeline", "per_step"]),
)
@example(
    # The command line makes the second step a CPU step: its GPU type is no second one.
    pipeline={Origin.COMMAND_LINE: SettingsLayer({}, {"gpu_count": 0})},
    own=[
        {Origin.COMMAND_LINE_STEP: SettingsLayer({"gpu": ["H100", "A100"]})},
        {Origin.SPEC_STEP: SettingsLayer({"gpu": "T4"})},
    ],
    mode="pipeline",
)
def test_a_stored_deployment_plans_the_same(pipeline: Layers, own: list[Layers], mode: str) -> None:
    """ZenML stores what the places come to, not the places."""
    direct = deployment(pipeline, *own, mode=mode)
    above = {o: w for o, w in direct.layers.items() if o is not Origin.COMPONENT}
    try:
        expected = plan(direct)
    except UsageError:
        expected = None
    try:
        stored = Deployment(
            "p",
            tuple(
                CompiledStep(s.planned, {Origin.CODE_STEP: flatten(above, s.layers)})
                for s in direct.steps
            ),
            {
                Origin.CODE_PIPELINE: flatten(above),
                Origin.COMPONENT: direct.layers.get(Origin.COMPONENT, SettingsLayer()),
            },
        )
        made = plan(stored)
    except UsageError:
        assert expected is None
        return
    assert expected is not None
    # Notes speak of places, which a stored deployment has no more.
    assert replace(made, notes=()) == replace(expected, notes=())


@given(pipeline=pipelines, own=st.lists(steps, max_size=3))
def test_driver_and_cpu_steps_hold_no_gpu(pipeline: Layers, own: list[Layers]) -> None:
    try:
        made = plan(deployment(pipeline, *own))
    except UsageError:
        return
    assert made.run_sandbox.resources.gpus == ()
    for step, places in zip(made.steps, own, strict=True):
        flat = flatten({}, places)
        has_resources = any(flat.get(name) is not None for name in ("cpu_count", "memory"))
        if flat.get("gpu_count") == 0 or (
            has_resources and flat.get("gpu") is None and flat.get("gpu_count") is None
        ):
            assert step.sandbox is not None
            assert step.sandbox.resources.gpus == ()


@given(
    pipeline=pipelines,
    own=st.lists(steps, max_size=3),
    mode=st.sampled_from(["pipeline", "per_step"]),
)
def test_every_value_has_an_origin(pipeline: Layers, own: list[Layers], mode: str) -> None:
    try:
        made = plan(deployment(pipeline, *own, mode=mode))
    except UsageError:
        return
    names = [RUN_SANDBOX, *(step.name for step in made.steps if step.sandbox)]
    for sandbox, key in zip(made.sandboxes, names, strict=True):
        origins = made.sandbox_origins[key]
        # The driver of static steps gets neither secrets nor volumes.
        shown = {"timeout", "cloud", "region"}
        shown |= {"secrets", "volumes"} if key or mode == "pipeline" else set()
        for name in shown:
            assert origins[name].source
        assert ("secrets" in origins) == ("secrets" in shown)
        for value, name in ((sandbox.resources.cpu, "cpu_count"), (sandbox.resources.gpu, "gpu")):
            assert value is None or origins[name].source


def test_every_setting_reaches_the_plan() -> None:
    """A new setting has to be thought of here."""
    run = {"mode", "app_name", "modal_environment", "workspace", "max_parallelism", "synchronous"}
    run |= {"infrastructure_retries", "keep_warm", "creation_rate", "source_include"}
    run |= {"wait_for_capacity"}
    sandbox = {"timeout", "gpu_wait", "cloud", "region", "secrets", "volumes"}
    in_resources = {"gpu", "cpu_limit", "memory_limit"}
    assert run | sandbox | in_resources | {"image"} == set(FIELD_NAMES)
    made = plan(deployment({}, mode="pipeline"))
    assert set(made.origins) == run
    assert sandbox <= set(made.sandbox_origins[RUN_SANDBOX])


def test_a_step_cant_have_run_settings_of_its_own() -> None:
    made = plan(
        deployment({}, {Origin.CODE_STEP: SettingsLayer({"app_name": "mine", "mode": "pipeline"})})
    )
    assert made.settings.app_name == "zenml-pipeline-p"
    assert any("app_name, mode: no effect on a step" in note for note in made.notes)


def test_the_runs_timeout_bounds_the_steps() -> None:
    made = plan(
        deployment(
            {Origin.CODE_PIPELINE: SettingsLayer({"timeout": 100})},
            {Origin.CODE_STEP: SettingsLayer({"timeout": 500})},
            {Origin.CODE_STEP: SettingsLayer({"timeout": 50})},
        )
    )
    assert [s.sandbox.timeout for s in made.steps if s.sandbox] == [100, 50]
    assert [s.sandbox.env["MODALRUN_TIMEOUT"] for s in made.steps if s.sandbox] == ["100", "50"]
    assert any("is cut to the run's" in note for note in made.notes)


def test_the_same_note_about_many_steps_is_one() -> None:
    own = {Origin.CODE_STEP: SettingsLayer({}, {"memory": "1GB"})}
    made = plan(deployment({Origin.CODE_PIPELINE: SettingsLayer({"gpu": "T4"})}, *[own] * 7))
    (note,) = made.notes
    assert note.startswith("steps 's0', 's1', 's2', 's3', 's4' and 2 more: no GPU")


@pytest.mark.parametrize("path", ["/app", "/app/code", "/opt/", "/opt/modalrun"])
def test_a_volume_over_modalruns_own_files(path: str) -> None:
    volumes = SettingsLayer({"volumes": {"data": path}})
    with pytest.raises(UsageError, match=f"'data' can't be mounted at {path} "):
        plan(deployment({Origin.CODE_PIPELINE: volumes}))
    plan(deployment({Origin.CODE_PIPELINE: SettingsLayer({"volumes": {"data": f"{path}/more"}})}))


def test_two_volumes_of_two_places_at_one_path() -> None:
    layers = {
        Origin.CODE_PIPELINE: SettingsLayer({"volumes": {"datasets": "/old", "models": "/data"}}),
        Origin.SPEC_PIPELINE: SettingsLayer({"volumes": {"datasets": "/data"}}),
    }
    with pytest.raises(UsageError, match="'datasets' and 'models' are both mounted at /data"):
        plan(deployment(layers))


def test_unknown_names_are_passed_on_with_a_warning() -> None:
    made = plan(
        deployment(
            {
                Origin.CODE_PIPELINE: SettingsLayer(
                    {"gpu": "H1000", "region": ["us-eas", "eu"], "cloud": "awz"}
                )
            },
            mode="pipeline",
        )
    )
    assert made.run_sandbox.resources.gpu == "H1000"
    assert made.run_sandbox.regions == ("us-eas", "eu")
    assert made.run_sandbox.cloud == "awz"
    text = "\n".join(made.notes)
    for word, close in (("H1000", "H100"), ("us-eas", "us-east"), ("awz", "aws")):
        assert f"'{word}'" in text
        assert f"did you mean '{close}'?" in text
    assert "'eu'" not in text


def test_layers() -> None:
    graph = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    views = [CompiledStep(PlannedStep(name, upstream)) for name, upstream in graph.items()]
    made = plan(Deployment("p", tuple(views)))
    assert made.layers == (("a",), ("b", "c"), ("d",))
