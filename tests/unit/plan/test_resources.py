"""The GPU, CPU and memory of a sandbox."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.plan import catalog
from modalrun.plan.resources import Resolved, Resources, memory_mib, of_pipeline, of_step
from modalrun.run.run_plan import Target
from modalrun.spec.fields import split_gpu
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, flatten

UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}


def written(**values: Any) -> SettingsLayer:
    resources = {k: values.pop(k) for k in ("cpu_count", "memory", "gpu_count") if k in values}
    return SettingsLayer(values, resources)


def code(**values: Any) -> Layers:
    return {Origin.CODE_PIPELINE: flatten({Origin.CODE_PIPELINE: written(**values)})}


def joined(pipeline: dict[str, Any], *steps: dict[str, Any]) -> Resolved:
    flat = {
        f"s{i}": flatten(code(**pipeline), {Origin.CODE_STEP: written(**step)})
        for i, step in enumerate(steps)
    }
    return of_pipeline(code(**pipeline), flat)


def alone(pipeline: dict[str, Any], step: dict[str, Any]) -> Resolved:
    return of_step(
        "s", code(**pipeline), flatten(code(**pipeline), {Origin.CODE_STEP: written(**step)})
    )


@pytest.mark.parametrize(
    ("text", "mib"),
    [("32GB", 30518), ("32GiB", 32768), ("1KB", 1), ("1024KiB", 1), ("1025KiB", 2), ("0MB", 0)],
)
def test_memory(text: str, mib: int) -> None:
    assert memory_mib(text) == mib


@given(number=st.integers(0, 10**30), unit=st.sampled_from(sorted(UNITS)))
def test_memory_is_the_exact_ceiling(number: int, unit: str) -> None:
    exact = Fraction(number * UNITS[unit], 2**20)
    assert exact <= memory_mib(f"{number}{unit}") < exact + 1


@pytest.mark.parametrize("text", ["", "32", "GB", "32 GB", "32gb", "-1GB", "1.5GB", "32G", "1e3MB"])
def test_not_an_amount_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="is not an amount of memory") as caught:
        memory_mib(text)
    assert caught.value.hint


def test_every_unit_of_zenml_is_understood() -> None:
    from zenml.config.resource_settings import ByteUnit

    assert {unit.value for unit in ByteUnit} <= set(UNITS)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"gpu_count": 0}, None),
        ({"gpu": "A100"}, "A100"),
        ({"gpu": "A100", "gpu_count": 1}, "A100"),
        ({"gpu": "A100", "gpu_count": 2}, "A100:2"),
        ({"gpu": "A100", "gpu_count": 0}, None),
        ({"gpu": "A100:2"}, "A100:2"),
        ({"gpu": "A100:2", "gpu_count": 2}, "A100:2"),
        ({"gpu": "A100:1"}, "A100"),
        ({"gpu": "A100-80GB", "gpu_count": 8}, "A100-80GB:8"),
        ({"gpu": "Z900", "gpu_count": 99}, "Z900:99"),
    ],
)
def test_type_and_count(settings: dict[str, Any], expected: str | None) -> None:
    assert joined(settings).resources.gpu == expected
    assert alone(settings, {}).resources.gpu == expected


def test_gpu_fallback() -> None:
    found = joined({"gpu": ["H100", "A100-80GB", "h100"], "gpu_count": 2}).resources
    assert found.gpus == ("H100:2", "A100-80GB:2", "h100:2")
    assert joined({"gpu": ["H100:2", "A100:4"]}).resources.gpus == ("H100:2", "A100:4")
    assert joined({"gpu": ["H100", "A100"], "gpu_count": 0}).resources.gpus == ()


def test_a_count_without_a_type_names_the_setting() -> None:
    with pytest.raises(UsageError) as caught:
        joined({}, {"gpu_count": 4})
    assert "4 GPUs" in caught.value.message
    assert "s0" in caught.value.message
    assert str(caught.value.hint) == (
        "Write the type, such as 'gpu: T4', under 'settings: orchestrator:', or, to run without a"
        " GPU, 'gpu_count: 0' under 'settings: resources:'."
    )
    with pytest.raises(UsageError, match="step 's' asks for 1 GPU ") as caught:
        alone({}, {"gpu_count": 1})
    # For all steps it would also be one for those that need none.
    assert "'steps: s: settings: orchestrator:'" in str(caught.value.hint)
    assert "'steps: s: settings: resources:'" in str(caught.value.hint)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_counts_of_one_place_that_contradict_each_other(count: int) -> None:
    with pytest.raises(UsageError, match="contradict") as caught:
        joined({"gpu": "A100:2", "gpu_count": count})
    assert "A100:2" in caught.value.message
    assert f"gpu_count {count}" in caught.value.message


@pytest.mark.parametrize(("gpu", "most"), [("A10G", 4), ("a10", 4), ("H100", 8), ("T4", 8)])
def test_more_than_modal_allows(gpu: str, most: int) -> None:
    assert joined({"gpu": gpu, "gpu_count": most}).resources.gpu == f"{gpu}:{most}"
    with pytest.raises(UsageError, match=f"at most {most}"):
        joined({"gpu": gpu, "gpu_count": most + 1})


@pytest.mark.parametrize("text", ["", ":2", "A100:", "A100:x", "A100:0", "A100:-1", "A100:²"])
def test_not_a_gpu_type(text: str) -> None:
    with pytest.raises(ValueError, match="is not a GPU type"):
        split_gpu(text)


# One sandbox for all steps.


def test_no_settings() -> None:
    found = joined({}, {}, {})
    assert (found.resources, found.notes) == (Resources(), ())


def test_the_pipelines_settings_count() -> None:
    found = joined(
        {"gpu": "T4", "gpu_count": 1, "cpu_count": 2.0, "memory": "1GiB"},
        {"gpu": "A100", "gpu_count": 4, "cpu_count": 8.0, "memory": "64GiB"},
    )
    assert found.resources == Resources(("T4",), 2.0, 1024)
    assert found.notes == ()


def test_each_quantity_is_the_highest_on_its_own() -> None:
    found = joined(
        {},
        {},
        {"cpu_count": 8.0, "memory": "1GB"},
        {"cpu_count": 1.0, "memory": "1GiB"},
        {"gpu": "A100", "gpu_count": 4},
        {"gpu": "a100", "gpu_count": 1},
    )
    assert found.resources == Resources(("A100:4",), 8.0, 1024)
    assert found.origins["cpu_count"].source == "highest of steps: s1"
    assert found.origins["memory"].source == "highest of steps: s2"
    assert found.origins["gpu_count"].source == "highest of steps: s3"


def test_a_count_in_a_steps_type_is_a_count() -> None:
    assert joined({}, {"gpu": "A100"}, {"gpu": "A100:2"}).resources.gpu == "A100:2"


def test_a_type_on_the_pipeline_means_one_despite_cpu_steps() -> None:
    assert joined({"gpu": "A100"}, {"gpu_count": 0}).resources.gpu == "A100"


def test_different_types_name_both_steps() -> None:
    with pytest.raises(UsageError) as caught:
        joined({}, {"gpu": "A100"}, {}, {"gpu": "T4"})
    for part in ("'s0'", "A100", "'s2'", "T4"):
        assert part in caught.value.message
    assert "per_step" in str(caught.value.hint)
    assert joined({"gpu": "L4"}, {"gpu": "A100"}, {"gpu": "T4"}).resources.gpu == "L4"


def test_a_steps_type_beats_the_components() -> None:
    places = {Origin.COMPONENT: SettingsLayer({"gpu": "T4"})}
    flat = flatten({}, {Origin.CODE_STEP: SettingsLayer({"gpu": "A100"})})
    assert of_pipeline(places, {"s": flat}).resources.gpu == "A100"
    assert of_pipeline(places, {}).resources.gpu == "T4"


# A sandbox for each step.


@pytest.mark.parametrize(
    ("step", "gpu"),
    [
        ({}, "T4"),
        ({"cpu_count": 2, "memory": "4GB"}, None),
        ({"gpu": "A100", "gpu_count": 1, "memory": "32GB"}, "A100"),
        ({"gpu_count": 1, "memory": "16GB"}, "T4"),
        ({"gpu": "A100"}, "A100"),
        ({"gpu": "A100", "memory": "32GB"}, "A100"),
        ({"gpu_count": 0}, None),
        ({"gpu_count": 2}, "T4:2"),
        ({"timeout": 60}, "T4"),
    ],
)
def test_the_pipelines_type_is_the_default_of_gpu_steps(
    step: dict[str, Any], gpu: str | None
) -> None:
    assert alone({"gpu": "T4"}, step).resources.gpu == gpu


def test_the_pipelines_count_is_inherited_too() -> None:
    pipeline = {"gpu": "A100", "gpu_count": 4}
    assert alone(pipeline, {}).resources.gpu == "A100:4"
    assert alone(pipeline, {"gpu": "H100"}).resources.gpu == "H100:4"
    assert alone(pipeline, {"gpu": "H100", "gpu_count": 1}).resources.gpu == "H100"
    assert alone(pipeline, {"cpu_count": 1}).resources.gpu is None
    assert alone({"gpu_count": 0}, {"gpu": "H100"}).resources.gpu == "H100"


def test_a_cpu_step_is_noted() -> None:
    (note,) = alone({"gpu": "T4"}, {"memory": "4GB"}).notes
    assert "without a gpu_count" in note


def test_open_quantities_are_inherited() -> None:
    found = alone({"cpu_count": 4, "memory": "8GiB"}, {"memory": "1GiB"}).resources
    assert found == Resources(cpu=4, memory=1024)


# Bounds.


def test_below_the_minimum_is_raised_and_noted() -> None:
    found = joined({"cpu_count": 0.01, "memory": "1MB"})
    assert found.resources == Resources(cpu=0.125, memory=128)
    assert len(found.notes) == 2
    assert all("minimum" in note for note in found.notes)


def test_limits() -> None:
    found = joined({"cpu_count": 2, "cpu_limit": 4.0, "memory_limit": "2GiB"}).resources
    assert (found.cpu, found.cpu_limit, found.memory, found.memory_limit) == (2, 4.0, 1024, 2048)


@pytest.mark.parametrize(
    ("settings", "cpu", "memory"),
    [
        ({}, 0.5, 1024),
        ({"gpu": "T4"}, 0.5, 1024),
        ({"cpu_count": 4}, 4, 1024),
        ({"memory": "256MiB"}, 0.5, 256),
        ({"cpu_limit": 0.25, "memory_limit": "512MiB"}, 0.25, 512),
        ({"cpu_limit": 2.0, "memory_limit": "16GiB"}, 0.5, 1024),
    ],
)
def test_what_nothing_asks_for_has_a_default(
    settings: dict[str, Any], cpu: float, memory: int
) -> None:
    for found in (joined(settings), alone(settings, {})):
        assert (found.resources.cpu, found.resources.memory) == (cpu, memory)
        for name in {"cpu_count", "memory"} - settings.keys():
            assert found.origins[name].origin is Origin.DEFAULT
        assert found.notes == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"cpu_count": 4, "cpu_limit": 2.0},
        {"memory": "4GiB", "memory_limit": "2GiB"},
        {"memory_limit": "64MiB"},
    ],
)
def test_a_limit_below_its_request(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"_limit .* is below"):
        joined(settings)


@pytest.mark.parametrize(
    ("target", "limits", "told"),
    [
        ("local", {"memory_limit": 2048}, ["memory_limit: the local Modal server keeps no limits"]),
        ("local", {}, []),
        ("modal", {"cpu_limit": 2.0, "memory_limit": 2048}, []),
    ],
)
def test_limits_are_not_kept_on_this_machine(
    target: Target, limits: dict[str, Any], told: list[str]
) -> None:
    sandbox = SimpleNamespace(resources=Resources(**limits), regions=(), cloud=None)
    assert catalog.notes([sandbox], target) == told  # type: ignore[list-item]
