"""The run spec that is kept with a deployment, and what a rerun makes of it."""

from __future__ import annotations

import datetime
import json
from typing import Any

from modalrun.spec.overrides import Override, command_line, param_option, set_option
from modalrun.spec.spec_record import KEY, MAX_LENGTH, SpecRecord

FILE: dict[str, Any] = {
    "pipeline": "training.training",
    "target": "local",
    "source_root": "..",
    "parameters": {"rate": 0.1, "day": datetime.date(2026, 11, 28)},
    "settings": {"orchestrator": {"gpu": "T4", "timeout": "2h"}},
}


def record(*overrides: Override) -> SpecRecord:
    """Store a record, and read it again."""
    made = SpecRecord({}).with_keys(FILE, command_line(overrides))
    stored = json.loads(json.dumps(made.to_environment()))
    found = SpecRecord.of({"python_version": "3.11", **stored})
    assert found is not None
    return found


def data_of(found: SpecRecord, *given: Override) -> dict[str, Any]:
    return dict(found.command_line(command_line(given)).data)


def test_what_belongs_to_the_machine_is_not_kept() -> None:
    kept = record(Override("--source-root", ("source_root",), "/home/me"))
    assert set(kept.file) == {"pipeline", "parameters", "settings"}
    assert kept.file["parameters"] == {"rate": 0.1, "day": "2026-11-28"}
    assert kept.flags == []


def test_the_command_line_of_a_rerun_overrides_that_of_the_run() -> None:
    kept = record(param_option("rate=0.2"), set_option("settings.orchestrator.gpu=A100"))
    assert data_of(kept) == {
        "parameters": {"rate": 0.2},
        "settings": {"orchestrator": {"gpu": "A100"}},
    }
    assert data_of(kept, set_option("gpu=H100"))["settings"]["orchestrator"] == {"gpu": "H100"}
    assert data_of(kept, set_option("settings.orchestrator={mode: per_step}")) == {
        "parameters": {"rate": 0.2},
        "settings": {"orchestrator": {"mode": "per_step"}},
    }


def test_a_key_inside_of_a_mapping_of_the_command_line_leaves_the_rest_of_that() -> None:
    kept = record(
        param_option("options={rate: 1, deep: true}"),
        set_option("settings.orchestrator={gpu: A100}"),
    )
    given = (
        set_option("parameters.options.rate=2"),
        Override("--sync", ("settings", "orchestrator", "synchronous"), True),
    )
    changed = {
        "parameters": {"options": {"rate": 2, "deep": True}},
        "settings": {"orchestrator": {"gpu": "A100", "synchronous": True}},
    }
    assert data_of(kept, *given) == changed
    later = kept.with_keys({}, command_line(given))
    assert data_of(later) == changed
    other = data_of(later, param_option("options={rate: 3}"))
    assert other["parameters"] == {"options": {"rate": 3}}


def test_a_later_submission_of_the_deployment_adds_to_it() -> None:
    kept = record(set_option("settings.orchestrator.gpu=A100"), param_option("rate=0.2"))
    later = kept.with_keys(
        {"deployment": "file.json", "settings": {"orchestrator": {"gpu": "H100"}}},
        command_line([set_option("settings.orchestrator.timeout=60")]),
    )
    assert later.file["settings"] == {"orchestrator": {"gpu": "H100", "timeout": "2h"}}
    assert data_of(later) == {
        "parameters": {"rate": 0.2},
        "settings": {"orchestrator": {"timeout": 60}},
    }


def test_a_long_spec_is_not_kept() -> None:
    made = SpecRecord({}).with_keys({"parameters": {"text": "x" * MAX_LENGTH}}, command_line(()))
    assert made.to_environment() == {}


def test_a_missing_or_damaged_record_is_none() -> None:
    assert SpecRecord.of({}) is None
    for wrong in ("text", {"file": 1}, {"file": {}, "flags": [["--gpu"]]}, {}):
        assert SpecRecord.of({KEY: wrong}) is None


def test_arguments_are_kept_as_they_were_read_for_their_types() -> None:
    made = SpecRecord({}).with_keys(
        {"parameters": {"code": 7, "rate": 1}, "steps": {"train": {"parameters": {"day": 1}}}},
        command_line([param_option("branch=NO"), set_option("steps.load.parameters.code=010")]),
    )
    kept = made.as_read(
        {
            "parameters": {"code": "007", "rate": 1, "branch": "NO"},
            "steps": {
                "train": {"parameters": {"day": "01"}},
                "load": {"parameters": {"code": "010"}},
            },
        }
    )
    assert kept.file == {
        "parameters": {"code": "007", "rate": 1},
        "steps": {"train": {"parameters": {"day": "01"}}},
    }
    assert [value for _, _, value in kept.flags] == ["NO", "010"]


def test_keys_are_kept_as_they_were_read_for_their_types() -> None:
    flag = param_option("rates={007: 1}")
    made = SpecRecord({}).with_keys({"parameters": {"names": {10: 8}}}, command_line([flag]))
    read = {"names": {"010": "010"}, "rates": {"007": 1}}
    kept = made.as_read({"parameters": read})
    assert kept.file["parameters"] == {"names": read["names"]}
    assert [value for _, _, value in kept.flags] == [read["rates"]]


def test_arguments_of_a_key_for_several_steps_are_kept_as_they_were_read() -> None:
    steps = {"train*": {"parameters": {"tag": 7, "n": 1}}, "train_2": {"parameters": {"tag": 8}}}
    flag = "steps.train_*.parameters.code=010"
    made = SpecRecord({}).with_keys({"steps": steps}, command_line([set_option(flag)]))
    read = {
        "train": {"parameters": {"tag": "007", "n": 1}},
        "train_2": {"parameters": {"tag": "008", "n": 1, "code": "010"}},
        "train_3": {"parameters": {"tag": 7, "n": 1, "code": 8}},
    }
    kept = made.as_read({"steps": read})
    assert kept.file["steps"] == {
        "train*": {"parameters": {"tag": "007", "n": 1}},
        "train_2": {"parameters": {"tag": "008"}},
    }
    assert [value for _, _, value in kept.flags] == ["010"]
