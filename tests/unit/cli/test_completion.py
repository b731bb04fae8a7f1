"""What is offered for a part of the command line."""

from __future__ import annotations

import pytest

from modalrun import cli
from modalrun.zenml_api.records import completion
from modalrun.zenml_api.records.completion import RecentRun

RUNS = [
    RecentRun("b" * 36, "newest", "running", "other"),
    RecentRun("a" * 36, "older", "failed", "training"),
]
STEPS = {"a" * 36: ["load", "train"], "b" * 36: ["one"]}
CHILD_STEPS = {"a" * 36: ["inner/load", "inner_2/deep/load"]}


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ("rerun older --from ", ["load", "train"]),
        ("rerun aaaa --from ", ["load", "train"]),
        ("rerun older --from l", ["load"]),
        ("rerun older --from load --from ", ["load", "train"]),
        ("rerun --from ", ["one"]),
        ("logs --follow older --step ", ["load", "train", "inner/load", "inner_2/deep/load"]),
        ("exec older --step inner/", ["inner/load"]),
    ],
)
def test_the_steps_of_the_run_that_is_named(
    line: str, steps: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completion, "recent_runs", lambda: RUNS)

    def steps_of(run_id: str, *, of_children: bool) -> list[str]:
        return [*STEPS[run_id], *(CHILD_STEPS.get(run_id, ()) if of_children else ())]

    monkeypatch.setattr(completion, "steps_of", steps_of)
    monkeypatch.setenv(cli.COMPLETE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"modalrun {line}")
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))

    assert cli.run([]) == 0

    assert capsys.readouterr().out.split() == steps
