"""How a run has ended, by the end of its sandbox and ZenML's record."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from modalrun.errors import NotFoundError
from modalrun.observe.outcome import derive_outcome
from modalrun.run.artifacts import Artifact
from modalrun.run.events import StepEvent
from modalrun.run.failure import Failure
from modalrun.run.failure_hints import hint_on_failure
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.progress import RunProgress
from modalrun.run.records import StepRecord
from modalrun.run.sandbox_exit import SandboxExit, read_exit
from tests.unit.fakes import NOW, RUN_ID
from tests.unit.observe.test_attach import Bench

HOUR = timedelta(hours=1)
STOPPED = read_exit(137, 3, "The local Modal server was stopped.")


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(("keeps", "begun"), [(True, False), (True, True), (False, False)])
def test_an_entrypoint_that_is_kept_and_runs_no_command(
    code: int, keeps: bool, begun: bool
) -> None:
    bench = Bench()
    progress = RunProgress(bench.handle.steps)
    if begun:
        progress.apply(StepEvent("load", "running", at=1.0))

    plan = bench.handle.plan
    plan = replace(plan, run_sandbox=replace(plan.run_sandbox, keeps_entrypoint=keeps))
    derive_outcome(replace(bench.handle, plan=plan), progress, read_exit(code), bench.zenml)

    (reason,) = bench.zenml.reasons
    assert ("'keep_entrypoint'" in reason) is (keeps and not begun)
    assert ('exec "$@"' in (hint_on_failure(reason) or "")) is (keeps and not begun)


def test_a_command_that_needs_the_files_of_the_run_names_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my src").mkdir()
    bench = Bench()
    bench.handle = replace(bench.handle, source_root=tmp_path / "my src")
    bench.ends(0, "paused")
    monkeypatch.chdir(tmp_path)
    details = dict(bench.follow().details)
    assert details["resume"] == f"modalrun resume {RUN_ID} --source-root '{tmp_path}/my src'"
    monkeypatch.chdir(tmp_path / "my src")
    assert bench.handle.with_folder("modalrun rerun 1") == "modalrun rerun 1"


def test_what_a_child_pipeline_waits_for_is_answered_by_the_childs_id() -> None:
    bench = Bench()
    child = replace(bench.zenml.run, id="child", status="paused", parent=RUN_ID)
    bench.zenml.run = replace(bench.zenml.run, children={"inner": child})
    bench.ends(0, "paused")
    details = dict(bench.follow().details)
    assert details["child"] == "inner: child (paused)"
    assert details["answer"].endswith("--run child")
    assert details["resume"].endswith(RUN_ID)


def test_the_cost_of_a_run_has_that_of_its_child_pipelines() -> None:
    costs = []
    for children in ({}, {"inner": "child"}):
        bench = Bench("per_step")
        run, metadata = bench.zenml.run, RunMetadata("local", "per_step", "app", "ap-1", "sb", 60)
        below = {label: replace(run, id=one) for label, one in children.items()}
        bench.zenml.run = replace(run, metadata=metadata, start=NOW, end=NOW, children=below)
        hour = StepMetadata("sb-load", cpu=1.0, memory=1024)
        bench.ends(0, "completed", StepRecord("load", "completed", 1, NOW, NOW + HOUR, None, hour))
        costs.append(dict(bench.follow().details)["cost"])
    assert re.findall(r"about \$([.0-9]+)", " ".join(costs)) == ["0.1660", "0.3319"]


@pytest.mark.parametrize(
    ("end", "asked", "state"),
    [
        (STOPPED, NotFoundError("The server has ended."), "lost"),
        (read_exit(137), None, "lost"),
        (read_exit(137), NotFoundError("Modal can't be asked."), "running"),
    ],
)
def test_no_step_runs_where_all_sandboxes_have_ended(
    end: SandboxExit, asked: NotFoundError | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench("per_step")
    bench.zenml.run = replace(bench.zenml.run, status="running")
    monkeypatch.setattr(bench.sandboxes, "running", Mock(return_value=[], side_effect=asked))
    progress = RunProgress(bench.handle.steps)
    progress.apply(StepEvent("load", "running", at=1.0))
    outcome = derive_outcome(bench.handle, progress, end, bench.zenml)
    assert outcome.headline.endswith("The run is not over.")
    assert [step.state for step in outcome.steps] == [state, "waiting"]


def test_the_outputs_of_a_run_have_those_of_its_child_pipelines() -> None:
    bench = Bench()
    bench.zenml.run = replace(bench.zenml.run, children={"inner": bench.zenml.run})
    made = (Artifact("load", "output", "table", "1", "DataFrame", "s3://bucket/table"),)
    bench.ends(0, "completed", StepRecord("load", "completed", outputs=made))
    told = [text for label, text in bench.follow().details if label == "output"]
    assert told == [f"table version 1 (DataFrame) of {step}" for step in ("inner/load", "load")]


def test_a_run_that_ends_at_once_is_recorded_before_its_end_is_told() -> None:
    bench, over = Bench(), threading.Event()

    def record() -> None:
        over.wait()
        bench.effects.add("recorded late")

    bench.handle = replace(bench.handle, recording=threading.Thread(target=record))
    bench.handle.recording.start()
    bench.ends(1, "failed", StepRecord("load", "failed"))
    threading.Timer(0.2, over.set).start()
    bench.follow()
    found = [effect for effect in bench.effects if effect in {"recorded late", "finalize run"}]
    assert found == ["recorded late", "finalize run"]


@pytest.mark.parametrize("reason", [None, "RuntimeError: the pipeline's function raised"])
def test_the_reason_of_a_run_is_told_once_where_a_retry_of_its_step_did_not_come(
    reason: str | None,
) -> None:
    bench, why = Bench(), "The runner was killed (SIGKILL)."
    bench.zenml.run = replace(bench.zenml.run, reason=reason or why)
    bench.ends(1, "failed", StepRecord("train", "stopped", failure=Failure(why, lines=("x",))))
    outcome = bench.follow()
    assert outcome.headline == "Run failed: train."
    assert [step.reason for step in outcome.failed] == [why]
    assert dict(outcome.details).get("reason") == reason
