"""What a sandbox asks for."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalrun.errors import UsageError
from modalrun.resources import Request, Resources, gpu_string, memory_mib, pipeline_mode, request

UNITS = {
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
PIPELINE = Request("the pipeline")


def step(name: str, **written: Any) -> Request:
    return Request(f"step '{name}'", **written)


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


@pytest.mark.xfail(strict=True, reason="the unit B, which ZenML takes, is refused")
def test_every_unit_of_zenml_is_understood() -> None:
    from zenml.config.resource_settings import ByteUnit

    for unit in ByteUnit:
        memory_mib(f"1{unit.value}")


def test_request() -> None:
    read = request(
        "step 'a'",
        {"gpu": "A100", "timeout": 5},
        {"gpu_count": 2, "cpu_count": 1.5, "memory": "1GB"},
    )
    assert read == Request("step 'a'", "A100", 2, 1.5, "1GB")
    assert request("x", {}, {}) == Request("x")


def test_request_with_one_gpu_in_a_list() -> None:
    assert request("x", {"gpu": ["T4"]}, {}).gpu_type == "T4"


def test_request_with_several_gpus_is_refused() -> None:
    with pytest.raises(UsageError, match="step 'a' names several GPU types \\(A100, T4\\)"):
        request("step 'a'", {"gpu": ["A100", "T4"]}, {})


# gpu_string: type and count as Modal writes them.


def gpu(gpu_type: str | None, count: int | None) -> str | None:
    return gpu_string(gpu_type, count, type_owner="the pipeline", count_owner="step 'a'")


@pytest.mark.parametrize(
    ("gpu_type", "count", "expected"),
    [
        (None, None, None),
        (None, 0, None),
        ("A100", None, "A100"),
        ("A100", 1, "A100"),
        ("A100", 2, "A100:2"),
        ("A100", 0, None),
        ("A100:2", None, "A100:2"),
        ("A100:2", 2, "A100:2"),
        ("A100:1", None, "A100"),
        ("A100-80GB", 8, "A100-80GB:8"),
    ],
)
def test_gpu(gpu_type: str | None, count: int | None, expected: str | None) -> None:
    assert gpu(gpu_type, count) == expected


@pytest.mark.parametrize("count", [1, 4])
def test_gpu_count_without_a_type_names_the_setting(count: int) -> None:
    with pytest.raises(UsageError) as caught:
        gpu(None, count)
    assert caught.value.message.startswith(f"step 'a' asks for {count} GPU")
    assert "gpu_count" in caught.value.message
    assert "orchestrator: gpu:" in str(caught.value.hint)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_counts_that_contradict_each_other(count: int) -> None:
    with pytest.raises(UsageError) as caught:
        gpu("A100:2", count)
    for part in ("the pipeline", "'A100:2'", "step 'a'", f"gpu_count {count}"):
        assert part in caught.value.message


@pytest.mark.parametrize("text", ["A100:", "A100:x", "A100:0", "A100:-1", "A100:1.5", "A100:2:2"])
def test_not_a_gpu_type(text: str) -> None:
    with pytest.raises(UsageError, match="is not a GPU type"):
        gpu(text, None)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(":2", marks=pytest.mark.xfail(strict=True, reason="no type is a type")),
        pytest.param(
            "A100:²", marks=pytest.mark.xfail(strict=True, reason="isdigit, but int() fails")
        ),
    ],
)
def test_not_a_gpu_type_either(text: str) -> None:
    with pytest.raises(UsageError, match="is not a GPU type"):
        gpu(text, None)


# pipeline_mode: one sandbox for all steps.


def test_nothing_written() -> None:
    assert pipeline_mode(PIPELINE, [step("a"), step("b")]) == (Resources(), [])


def test_what_the_pipeline_writes_counts() -> None:
    pipeline = Request("the pipeline", "T4", 1, 2.0, "1GiB")
    found, notes = pipeline_mode(
        pipeline, [step("a", gpu_type="T4", gpu_count=4, cpu=8.0, memory="64GiB")]
    )
    assert found == Resources("T4", 2.0, 1024)
    assert notes == []


def test_each_quantity_is_the_highest_on_its_own() -> None:
    found, notes = pipeline_mode(
        PIPELINE,
        [
            step("small"),
            step("cores", cpu=8.0, memory="1GB"),
            step("memory", cpu=1.0, memory="1GiB"),
            step("gpus", gpu_type="A100", gpu_count=4),
            step("gpu", gpu_type="A100", gpu_count=1),
        ],
    )
    assert found == Resources("A100:4", 8.0, 1024)
    assert len(notes) == 3
    by_quantity = {note.partition(":")[0]: note for note in notes}
    assert "step 'gpus'" in by_quantity["gpu count 4"]
    assert "step 'cores'" in by_quantity["cpu 8.0"]
    assert "step 'memory'" in by_quantity["memory 1GiB"]


def test_memory_is_compared_by_size_not_by_text() -> None:
    found, notes = pipeline_mode(PIPELINE, [step("a", memory="9GB"), step("b", memory="10GB")])
    assert found.memory == 9537
    assert "step 'b'" in notes[0]


def test_the_rest_comes_from_the_steps() -> None:
    pipeline = Request("the pipeline", memory="2GiB")
    found, notes = pipeline_mode(pipeline, [step("a", cpu=4.0, memory="8GiB")])
    assert found == Resources(None, 4.0, 2048)
    assert [n for n in notes if "memory" in n.partition(":")[0]] == []


def test_type_of_one_step_and_count_of_the_pipeline() -> None:
    pipeline = Request("the pipeline", gpu_count=2)
    assert pipeline_mode(pipeline, [step("a", gpu_type="L4"), step("b")])[0].gpu == "L4:2"


def test_type_of_the_pipeline_and_count_of_a_step() -> None:
    pipeline = Request("the pipeline", gpu_type="L4")
    found, notes = pipeline_mode(pipeline, [step("a", gpu_count=2), step("b", gpu_count=0)])
    assert found.gpu == "L4:2"
    assert "step 'a'" in notes[0]


def test_different_types_on_steps_name_both() -> None:
    with pytest.raises(UsageError) as caught:
        pipeline_mode(PIPELINE, [step("a", gpu_type="T4"), step("b"), step("c", gpu_type="A100")])
    for part in ("step 'a'", "T4", "step 'c'", "A100"):
        assert part in caught.value.message
    assert "pipeline" in str(caught.value.hint)


def test_types_that_differ_in_case_are_one() -> None:
    found, _ = pipeline_mode(PIPELINE, [step("a", gpu_type="a100"), step("b", gpu_type="A100")])
    assert found.gpu == "a100"


def test_different_types_do_no_harm_when_the_pipeline_sets_one() -> None:
    pipeline = Request("the pipeline", gpu_type="H100")
    found, _ = pipeline_mode(pipeline, [step("a", gpu_type="T4"), step("b", gpu_type="L4")])
    assert found.gpu == "H100"


def test_count_of_a_step_without_any_type() -> None:
    with pytest.raises(UsageError, match="step 'a' asks for 1 GPU "):
        pipeline_mode(PIPELINE, [step("a", gpu_count=1)])


def test_count_zero_is_a_cpu_sandbox() -> None:
    pipeline = Request("the pipeline", gpu_type="A100", gpu_count=0)
    assert pipeline_mode(pipeline, [])[0] == Resources()


def test_contradiction_of_a_step_names_it() -> None:
    with pytest.raises(UsageError, match=r"step 'a' sets gpu 'A100:2'.*step 'b' sets gpu_count 4"):
        pipeline_mode(PIPELINE, [step("a", gpu_type="A100:2"), step("b", gpu_count=4)])


def test_raised_to_the_minimum_with_a_note() -> None:
    found, notes = pipeline_mode(Request("the pipeline", cpu=0.05, memory="1MB"), [])
    assert found == Resources(None, 0.125, 128)
    assert len(notes) == 2
    assert "cpu 0.05" in notes[0]
    assert "memory 1MB" in notes[1]


def test_the_minimum_itself_is_no_news() -> None:
    found, notes = pipeline_mode(Request("the pipeline", cpu=0.125, memory="128MiB"), [])
    assert found == Resources(None, 0.125, 128)
    assert notes == []


@given(
    cpus=st.lists(st.none() | st.floats(0.125, 64), max_size=5),
    memories=st.lists(st.none() | st.integers(128, 10**6), max_size=5),
)
def test_a_step_never_gets_less_than_it_asks_for(
    cpus: list[float | None], memories: list[int | None]
) -> None:
    steps = [step(str(i), cpu=c) for i, c in enumerate(cpus)]
    steps += [step(f"m{i}", memory=m and f"{m}MiB") for i, m in enumerate(memories)]
    found, _ = pipeline_mode(PIPELINE, steps)
    assert found.cpu == max((c for c in cpus if c is not None), default=None)
    assert found.memory == max((m for m in memories if m is not None), default=None)
