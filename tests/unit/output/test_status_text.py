"""A run for people, at any width."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from rich.console import Console

from modalrun.output import status_text
from modalrun.output.status_json import as_json
from modalrun.output.status_text import foremost
from modalrun.output.terminal.console import print_lines
from modalrun.run.failure import Failure
from modalrun.run.metadata import Announced, RunMetadata, StepMetadata
from modalrun.run.records import Named, RunRecord, StepRecord
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.status import NOT_ASKED, SandboxState, derive_status

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
FACTS = RunMetadata(
    "modal", "per_step", "zenml-pipeline-training", "ap-" + "1" * 22, "sb-" + "A" * 26, 600, "dev"
)
STEP_FACTS = StepMetadata("sb-" + "B" * 26, gpu="H100:2", cpu=8, memory=32768, exit_reason="OOM.")
STEPS = [
    StepRecord("load_the_data", "completed", 1, NOON, NOON + timedelta(seconds=4)),
    StepRecord("train\x1b[2J", "failed", 2, NOON, NOON + timedelta(hours=2), metadata=STEP_FACTS),
    StepRecord("report", "not run"),
]
FAILURE = Failure(
    "boom",
    "ValueError",
    "train.py:7",
    ('  File "train.py", line 7, in train', '    raise ValueError("boom")'),
)
RUN = RunRecord(
    "0d1f5b62-7c1c-4f1e-9d5a-2f4f6f1a9b7e",
    "training-2026_11_23-12_00_00_000000",
    "training",
    "failed",
    NOON,
    NOON,
    NOON + timedelta(hours=2),
    reason="Steps failed.\nAll of them.",
    metadata=FACTS,
    stack=Named("a-stack-id", "our-stack"),
)


def rendered(
    width: int,
    run: RunRecord = RUN,
    modal: SandboxState = NOT_ASKED,
    steps: list[StepRecord] = STEPS,
) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, markup=False, emoji=False)
    view = derive_status(run, steps, modal)
    print_lines(console, status_text.render(view, NOON + timedelta(hours=3), width))
    return text.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_everything_is_said_at_any_width(width: int) -> None:
    text = rendered(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "\x1b" not in text and "2J" not in text
    assert f"  id        {RUN.id}" in lines
    assert "  stack     our-stack" in lines
    joined = " ".join(text.split())
    for part in ("Steps failed. All of them.", "modal, environment dev", "3 h 00 m ago", "OOM."):
        assert part in joined
    (row,) = [line for line in lines if line.startswith("train ")]
    assert "failed (try 2)" in row and "2 h 00 m" in row and "H100:2" in row
    assert bool(re.search(r"\d\d:\d\d:\d\d", row)) == (width >= 80)
    assert (STEP_FACTS.sandbox_id in row) == (width >= 120)


def test_a_step_that_was_started_again_says_why() -> None:
    facts = StepMetadata("sb-2", exit_reason="It was killed.", infrastructure_retries=1)
    steps = [StepRecord("train", "completed", 1, NOON, NOON, metadata=facts)]
    text = rendered(120, replace(RUN, status="completed", reason=None), steps=steps)
    assert "  train: It was killed. It was started again, without using up a retry.\n" in text


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_step_that_recorded_its_failure_shows_its_exception(state: str) -> None:
    end = StepMetadata("sb-2", exit_code=1, exit_reason="The step exited with code 1.")
    # ZenML has it as stopped where retries were left.
    steps = [StepRecord("train", state, 1, NOON, NOON, FAILURE, metadata=end)]
    text = rendered(120, RUN, steps=steps)
    assert (
        "  train: ValueError: boom (train.py:7)\n"
        '        File "train.py", line 7, in train\n'
        '          raise ValueError("boom")\n'
        f"    modalrun logs {RUN.id} --step train\n"
    ) in text
    assert "exited with code" not in text


def test_a_lost_run_says_what_to_do() -> None:
    lost = replace(RUN, status="running", end=None)
    text = rendered(80, lost, SandboxState("ended", read_exit(137)))
    assert "lost (ZenML says 'running')" in text
    assert f"  modalrun resume {RUN.id}\n" in text
    assert f"  modalrun reconcile {RUN.id}\n" in text
    # Nobody knows when it ended.
    assert "duration" not in text


def test_a_sandbox_without_a_place_does_not_run() -> None:
    announced = Announced("modal", "pipeline", "app", waiting="waiting for H100")
    queued = replace(RUN, status="initializing", end=None, announced=announced)
    view = derive_status(queued, [], SandboxState("running"))
    assert json.loads(as_json(view))["sandbox"]["presence"] == "waiting"
    text = rendered(120, queued, SandboxState("running"), steps=[])
    assert f"  sandbox   {FACTS.sandbox_id}, waiting for a place\n" in text


def test_the_runs_of_child_pipelines_are_told() -> None:
    child = replace(RUN, id="c-1", name="inner-1", status="running")
    run = replace(RUN, children={"inner": child})
    assert "  child     inner: c-1 (running)\n" in rendered(120, run)
    (told,) = json.loads(as_json(derive_status(run, [], NOT_ASKED)))["children"]
    assert told == {"label": "inner", "id": "c-1", "name": "inner-1", "state": "running"}

    run = replace(RUN, children={f"inner_{number}": child for number in range(10)})
    text = rendered(120, run)
    assert "inner_9:" in text and "inner_1:" not in text
    assert f"  child     and 2 more: modalrun status {RUN.id} --output json\n" in text


def test_steps_that_move_come_first_where_there_is_no_room_for_all() -> None:
    many = [StepRecord(f"done_{n}", "completed", 1, NOON, NOON) for n in range(50)]
    many += [StepRecord("busy", "running", 1, NOON), StepRecord("broken", "failed", 1, NOON, NOON)]
    many += [StepRecord(f"later_{n}", "not run") for n in range(50)]
    shown, rest = foremost(many, 3)
    assert [step.name for step in shown] == ["done_0", "busy", "broken"]
    assert len(rest) == len(many) - 3
    assert foremost(many, None) == (many, ())
    assert foremost(many[:3], 3) == (many[:3], ())


@pytest.mark.parametrize("width", [80, 120])
def test_a_progress_bar_is_the_last_column(width: int) -> None:
    busy = StepRecord("train", "running", 1, NOON, metadata=replace(STEP_FACTS, exit_reason=None))
    run = replace(RUN, status="running", end=None)
    view = derive_status(run, [STEPS[0], busy], NOT_ASKED)
    view = replace(view, bars={"train": "epoch 3/10  31 %\x1b[2J" + "|" * 200})
    lines = [line.plain for line in status_text.render(view, NOON, width)]
    table = lines[lines.index("") + 1 :]
    assert all(len(line) <= width for line in table)
    assert table[0].endswith("progress")
    assert "epoch 3/10  31 %" in table[2] and "\x1b" not in table[2]


def test_without_a_terminal_a_progress_bar_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modalrun.output.log_text.BAR_SECONDS", 0)
    busy = StepRecord("busy", "running", 1, NOON)
    view = derive_status(replace(RUN, status="running", end=None), [busy], NOT_ASKED)
    status_text.LiveStatus().show(replace(view, bars={"busy": "epoch 3/10  31 %"}))
    assert capsys.readouterr().out.splitlines()[-1].endswith(" step busy: epoch 3/10  31 %")


def test_a_file_is_not_redrawn_although_colours_are_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with status_text.LiveStatus() as live:
        live.show(derive_status(replace(RUN, status="running", end=None), [], NOT_ASKED))
        shown = capsys.readouterr().out
    assert shown.endswith(f"run {RUN.name}: running\n") and "\x1b[?25l" not in shown


def test_without_a_terminal_each_of_several_notes_is_a_line_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = replace(RUN, status="running", end=None, failing=True)
    view = derive_status(run, [], SandboxState("unknown", problem="It is away."))
    live = status_text.LiveStatus()
    live.show(view)
    live.show(view)
    assert capsys.readouterr().out.count(" note: ") == len(view.notes) == 2


def test_without_a_terminal_a_change_is_stamped_with_when_it_happened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(timezone.utc)
    began = now.replace(microsecond=0) - timedelta(seconds=30)
    done = StepRecord("done", "completed", 1, began, began + timedelta(seconds=4))
    busy = StepRecord("busy", "running", 1, began + timedelta(seconds=5))
    early = StepRecord("early", "starting", since=began + timedelta(seconds=1))
    run = replace(RUN, status="running", start=began, end=None)
    live = status_text.LiveStatus()
    view = derive_status(run, [done, busy, early, StepRecord("later", "not run")], NOT_ASKED)

    live.show(view)
    live.show(view)

    # Noticed together, said in the order in which it happened, once.
    assert capsys.readouterr().out.splitlines() == [
        f"{status_text._local(began + timedelta(seconds=seconds), now)} {words}"
        for seconds, words in (
            (0, f"run {RUN.name}: running"),
            (1, "step early: starting"),
            (4, "step done: completed"),
            (5, "step busy: running"),
        )
    ]

    live.show(derive_status(run, [], SandboxState("ended", read_exit(137))))
    live.show(view)

    # A run that was lost and goes on has not begun a second time.
    again = capsys.readouterr().out.splitlines()[-1]
    assert again.endswith(f" run {RUN.name}: running")
    assert not again.startswith(status_text._local(began, now))


def test_the_reason_of_a_run_is_told_once() -> None:
    why = "The runner was killed (SIGKILL)."
    step = StepRecord("train", "stopped", failure=Failure(why, lines=("about to be killed",)))
    assert rendered(120, replace(RUN, reason=why), steps=[step]).count(why) == 1
