"""Create a run and its sandbox; on a failure, leave neither of them behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import (
    ConnectionLostError,
    ModalrunError,
)
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import RunMetadata
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.submit.source.tree import SourceSelection
from tests.unit.fakes import RUN_ID, FakeSandbox
from tests.unit.submit.submission_bench import Bench


@pytest.fixture
def spec(tmp_path: Path, load: Callable[[str], RunSpec]) -> RunSpec:
    """A run spec beside a source tree of one module."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "training.py").write_text("")
    return load("pipeline: training.pipeline\ntarget: local\nsource_root: src\n")


def test_the_record_comes_before_the_sandbox_and_its_metadata_after(spec: RunSpec) -> None:
    bench = Bench(spec, timeout=600, cpu_count=2)
    bench.create()
    handle = bench.submission.handle
    assert handle is not None
    assert [e for e in bench.effects if e != "build images"] == [
        "create run",
        "create sandbox",
        "record sandbox",
    ]
    assert (handle.run_id, handle.sandbox.id, handle.steps) == (RUN_ID, "sb-new", ("train",))
    assert not handle.resumed
    assert bench.zenml.metadata["modalrun_sandbox_id"] == "sb-new"
    assert bench.zenml.metadata["modalrun_timeout"] == 600
    assert bench.modal.request["spec"].name == f"modalrun-{RUN_ID}"
    assert bench.modal.request["secrets"] == {"ZENML_STORE_API_TOKEN": "secret"}
    assert bench.modal.request["files"] == ["training.py"]
    source, *lines = bench.observer.lines
    assert source.startswith("source: 1 file, 0 B from ")
    assert lines[:3] == ["Run a-run", f"  id       {RUN_ID}", "  stack    default"]
    assert "sb-new (app zenml-pipeline-training, target local" in lines[3]


def test_per_step_sends_a_manifest_and_a_token_to_the_driver(spec: RunSpec) -> None:
    bench = Bench(spec, mode="per_step")
    bench.create()
    assert bench.modal.request["secrets"]["MODAL_TOKEN_ID"] == "ak-1"
    assert bench.modal.request["secrets"]["ZENML_STORE_API_TOKEN"] == "secret"
    assert any(name.startswith("modalrun_source_") for name in bench.zenml.metadata)
    assert bench.effects[:3] == ["create run", "build images", "create sandbox"]


@pytest.mark.parametrize("error", [None, ConnectionLostError("lost")])
def test_the_first_steps_begin_beside_the_driver_if_their_sandboxes_are_kept_warm(
    spec: RunSpec, error: ModalrunError | None
) -> None:
    bench = Bench(spec, mode="per_step", keep_warm=30)
    manifests: list[RunManifest] = []
    bench.modal.on_create = lambda options: manifests.append(
        RunManifest.from_json(options["manifest"].read_text())
    )
    if error is not None:
        bench.effects.errors["create train ahead"] = error
    bench.create()
    assert manifests[0].ahead == ("train",)
    assert bench.effects.index("create sandbox") < bench.effects.index("create train ahead")
    assert error or bench.modal.ahead == {"ZENML_STORE_API_TOKEN": "secret"}


@pytest.mark.parametrize("settings", [{"keep_warm": 0}, {"gpu": "T4"}, {"mode": "pipeline"}])
def test_no_step_begins_before_the_driver(spec: RunSpec, settings: dict[str, Any]) -> None:
    together: dict[str, Any] = {"mode": "per_step", "keep_warm": 30, **settings}
    bench = Bench(spec, **together)
    bench.create()
    assert "create train ahead" not in bench.effects


def test_a_run_that_the_cache_completes_gets_no_sandbox(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.zenml.created = replace(bench.zenml.created, finished=True)
    bench.create()
    assert bench.submission.handle is None
    assert bench.effects == ["create run", "publish metadata"]
    assert bench.zenml.metadata["modalrun_target"] == "local"


def test_another_gpu_is_reported(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.modal.sandbox = FakeSandbox("sb-new", "L4")
    bench.modal.on_create = lambda options: options["say"]("asking for L4 instead")
    bench.create()
    assert "  asking for L4 instead" in bench.observer.lines
    assert "gpu L4" in bench.observer.lines[-2]
    assert bench.zenml.metadata["modalrun_gpu"] == "L4"


def test_a_wait_is_shown_and_recorded_until_it_is_over(spec: RunSpec) -> None:
    bench = Bench(spec)
    wait = CapacityWait("H100", "A100", 0.0)
    recorded: list[str] = []

    def create(options: dict[str, Any]) -> None:
        for told in (wait, None):
            options["on_wait"](told)
            for thread in threading.enumerate():
                if thread.name == "announcing":
                    thread.join(30)
            recorded.append(bench.zenml.metadata["modalrun_waiting"])

    bench.modal.on_create = create
    bench.create()
    assert bench.observer.waits == [wait, None]
    assert recorded == ["waiting for H100, next: A100", ""]


def test_a_failure_in_zenml_creates_nothing(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.fail("create run", ConnectionLostError("ZenML does not answer."))
    assert bench.effects == ["create run"]


def test_a_failure_before_the_run_exists_is_no_interrupt(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.fail("create run", RuntimeError("the disk is full"))
    assert "Interrupted; nothing was submitted." not in bench.observer.lines
    bench.fail("create run", KeyboardInterrupt())
    assert bench.observer.lines[-1] == "Interrupted; nothing was submitted."


def test_an_interrupt_after_the_creation_leaves_the_run_alone(spec: RunSpec) -> None:
    bench = Bench(spec)

    def interrupt(line: str) -> None:
        if "sb-new" in line:
            raise KeyboardInterrupt

    bench.observer.on_line = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.create()
    assert bench.submission.handle is not None
    bench.submission.handle.recording.join()
    assert bench.effects[-2:] == ["create sandbox", "record sandbox"]
    assert not bench.zenml.run.finished


def test_a_run_that_is_stopped_before_its_sandbox_is_recorded(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.zenml.stopping = True
    bench.create()
    assert bench.effects[-2:] == ["record sandbox", "end sandboxes"]


def test_a_run_that_continues_in_another_sandbox(spec: RunSpec) -> None:
    previous = RunMetadata(
        *("local", "pipeline", "an-app", "ap-1", "sb-2"), earlier="sb-1", resumes=[1000.0]
    )
    bench = Bench(spec, previous=previous)
    bench.create()
    assert bench.submission.handle is not None
    assert bench.submission.handle.resumed
    assert bench.modal.request["earlier"] == "sb-2"
    assert bench.zenml.metadata["modalrun_earlier"] == "sb-1,sb-2"
    requested = bench.zenml.metadata["modalrun_requested"]
    assert bench.zenml.metadata["modalrun_resumes"] == [1000.0, requested]


def test_a_rerun_tells_which_files_go(spec: RunSpec, tmp_path: Path) -> None:
    bench = Bench(spec)
    root = spec.source_root
    bench.submission.submitted = stage(select(SourceSelection(root)), tmp_path / "copy")
    for name in (".env", "other.pem", "new.py"):
        (root / name).write_text("x")
    selection = SourceSelection(root, include=(".env", "other.pem"), added=(".env",))
    bench.submission.job = replace(bench.submission.job, source=selection)
    bench.create()
    # What the earlier run did not get, and the command line does not name, stays here.
    assert any("credential files go along: .env (" in line for line in bench.observer.lines)
    assert not any("go along" in line and "other.pem" in line for line in bench.observer.lines)
    assert any(line.startswith("source: 2 files, ") for line in bench.observer.lines)
