"""Advice as a table, as JSON, and as settings that a run spec takes."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from modalrun.observe.advice import LOST, RUNNING, Advice, Quantity, StepAdvice
from modalrun.output import advice_text
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec, load_spec
from tests.unit.observe.test_advice import RUN

LOAD = StepAdvice("load", 5, Quantity(2, 1, 0.42, 1), Quantity(8192, 1410, 1127, 2048))
LOAD = replace(LOAD, saved=Decimal("0.0048"))
FEATURES = StepAdvice("features", 5, Quantity(1, 0.99, 0.97, 1), Quantity(1024, 993, 850, 1536))
FEATURES = replace(FEATURES, saved=Decimal("-0.0001"))
TRAIN = StepAdvice(
    "train",
    5,
    Quantity(4, 1.21, 1.04, 1.5),
    Quantity(32768, 2304, 2100, 3072),
    gpu="A100",
    gpu_busy=4,
    saved=Decimal("0.1936"),
)
ADVICE = Advice("training", "per_step", (RUN, RUN), (LOAD, FEATURES, TRAIN), ("tiny",))


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    advice_text.print_advice(ADVICE)
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "training: cores and memory, by the last 2 runs (per_step)\n"
        "\n"
        "step      asked      peak            mean            ask for      a run\n"
        "load      2, 8 GiB   1, 1410 MiB     0.42, 1127 MiB  1, 2 GiB     saves $0.0048\n"
        "features  1, 1 GiB   0.99, 993 MiB   0.97, 850 MiB   1, 1536 MiB"
        "  raise: memory used 97 %\n"
        "train     4, 32 GiB  1.21, 2304 MiB  1.04, 2100 MiB  1.5, 3 GiB   saves $0.1936\n"
        "\n"
        "train: GPU (A100) busy 4 %: move preprocessing to a CPU step.\n"
        "With the suggested cores and memory a run costs $0.1983 less on Modal (list prices of"
        " 2026-09-01). '--write' prints the settings.\n"
        "Not measured, since they took less than a second or so: tiny.\n"
    )


def test_steps_that_were_not_measured_in_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    hog = replace(LOAD, step="hog", runs=0, memory=Quantity(8192, 8192, 0, 16384))
    hog = replace(hog, saved=Decimal("-0.1"), ran_out=True, kept=True)
    kept = replace(LOAD, saved=Decimal(0), kept=True)
    advice = replace(ADVICE, steps=(hog, kept), missing={"hog": LOST, "load": RUNNING})
    advice_text.print_advice(advice)
    out = capsys.readouterr().out
    assert "hog   2, 8 GiB  ?            ?               1, 16 GiB  raise: memory ran out" in out
    assert "1, 2 GiB   not all measured" in out
    reasons = (
        "Not measured to the end in each run (ended with its sandbox): hog. What a step of these"
    )
    assert f"{reasons} asks for is not lowered." in out
    assert "(still running): load." in out
    advice_text.print_advice(replace(advice, mode="pipeline"))
    assert "What the sandbox asks for is not lowered." in capsys.readouterr().out
    assert json.loads(advice_text.as_json(advice))["missing"]["hog"] == LOST
    advice_text.print_advice(replace(advice, steps=(kept,)))
    assert "With the suggested" not in capsys.readouterr().out


def test_settings_of_steps_that_a_run_spec_cannot_name(tmp_path: Path) -> None:
    text = advice_text.as_settings(replace(ADVICE, dynamic=True))
    assert all(line.startswith("# ") for line in text.splitlines())
    assert "#   train:" in text
    assert loaded(tmp_path, text).step_layers == {}


def test_what_else_is_said_of_gpus_and_prices(capsys: pytest.CaptureFixture[str]) -> None:
    unknown, busy = replace(TRAIN, gpu_busy=None), replace(TRAIN, step="tune", gpu_busy=80)
    dear = replace(FEATURES, saved=Decimal(-1))
    advice_text.print_advice(replace(ADVICE, steps=(unknown, busy, dear), unmeasured=()))
    out = capsys.readouterr().out
    assert "train: GPU use is not known (the local Modal server has no GPU" in out
    assert "tune: GPU (A100) busy 80 %." in out
    assert "cores and memory a run costs $0.6128 more on Modal" in out


def test_a_step_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    fits = StepAdvice("load", 1, Quantity(1, 0.9, 0.5, 1), Quantity(1024, 800, 700, 1024))
    advice = replace(ADVICE, steps=(replace(fits, saved=Decimal(0)),), runs=(RUN,))
    advice_text.print_advice(advice)
    assert "1, 1 GiB  fits\n" in capsys.readouterr().out
    assert advice_text.as_settings(advice) == ""


def test_a_name_that_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (replace(LOAD, step="\x1b[2Jevil"),)
    advice_text.print_advice(replace(ADVICE, steps=steps, unmeasured=("\x1b[2J",)))
    assert "\x1b[2J" not in capsys.readouterr().out


def test_json() -> None:
    document = json.loads(advice_text.as_json(ADVICE))
    assert document["format"] == "modalrun-advice"
    assert document["unmeasured"] == ["tiny"]
    features = document["steps"][1]
    assert features["memory"] == {
        "asked": 1024,
        "peak": 993,
        "mean": 850,
        "suggestion": 1536,
        "used_percent": 97,
    }
    assert (features["saved"], document["steps"][2]["gpu_busy"]) == ("-0.000100", 4)


def loaded(tmp_path: Path, text: str) -> RunSpec:
    path = tmp_path / "run.yaml"
    (tmp_path / "training.py").touch()
    path.write_text(f"pipeline: training.training\n{text}", encoding="utf-8")
    return load_spec(path)


def test_settings_that_a_run_spec_takes(tmp_path: Path) -> None:
    text = advice_text.as_settings(ADVICE)
    layers = loaded(tmp_path, text).step_layers
    found = {
        name: {
            key: layer[Origin.SPEC_STEP].get(key)
            for key in ("gpu", "cpu_count", "memory")
            if layer[Origin.SPEC_STEP].get(key) is not None
        }
        for name, layer in layers.items()
    }
    assert found == {
        "load": {"cpu_count": 1, "memory": "2GiB"},
        "features": {"memory": "1536MiB"},
        "train": {"gpu": "A100", "cpu_count": 1.5, "memory": "3GiB"},
    }


def test_settings_of_a_sandbox_that_all_steps_share(tmp_path: Path) -> None:
    whole = replace(TRAIN, step=None)
    step = replace(LOAD, saved=None)
    text = advice_text.as_settings(replace(ADVICE, mode="pipeline", steps=(whole, step)))
    layer = loaded(tmp_path, text).layers[Origin.SPEC_PIPELINE]
    assert (layer.get("cpu_count"), layer.get("memory"), layer.get("gpu")) == (1.5, "3GiB", None)
