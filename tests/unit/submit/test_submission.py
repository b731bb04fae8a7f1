"""Create a run and its sandbox; on a failure, leave neither of them behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import (
    CapacityError,
    ConnectionLostError,
    Interrupted,
    ModalrunError,
    NotFoundError,
    RunFailedError,
    RunStoppedError,
    UnknownOutcomeError,
    UsageError,
)
from modalrun.modal_api.capacity import GivenUp
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import RunMetadata
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import creation, withdrawal
from modalrun.submit.preflight import check
from modalrun.submit.submission import Submission
from modalrun.util import interrupts
from tests.unit.fake_zenml import FakeZenML, compiled
from tests.unit.fakes import RUN_ID, Effects, FakeModal, FakeObserver, FakeSandbox

TERMINATE = f"terminate modalrun-{RUN_ID}"


class Bench:
    """A submission on fakes.

    Attributes:
        submission: The submission.
        effects: What it has done to ZenML and to Modal, in order.
    """

    def __init__(self, spec: RunSpec, *, previous: RunMetadata | None = None, **settings: object):
        self.effects = Effects()
        self.zenml = FakeZenML(self.effects, "initializing")
        self.modal = FakeModal(self.effects)
        self.observer = FakeObserver()
        job = check(spec, compiled(**settings), FakeObserver(), modal=self.modal)
        self.effects.clear()
        self.submission = Submission(job, self.observer, self.zenml, previous=previous)

    def create(self) -> None:
        self.submission.create(self.zenml.create_run)
        if self.submission.handle is not None:
            self.submission.handle.recording.join()

    def fail(self, effect: str, error: BaseException) -> None:
        """Make an effect fail, and check that the submission fails with its error."""
        self.effects.errors[effect] = error
        with pytest.raises(type(error)):
            self.create()


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


def test_an_interrupt_gives_the_wait_up(spec: RunSpec) -> None:
    bench = Bench(spec)
    main = threading.get_ident()

    def create(options: dict[str, Any]) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        assert options["given_up"].wait(30)
        raise GivenUp

    bench.modal.on_create = create
    with interrupts.installed(), pytest.raises(KeyboardInterrupt):
        bench.create()
    interrupts.forget()
    assert bench.zenml.run.status == "stopped"
    assert bench.observer.lines[-1].endswith("nothing of it is running.")


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


def test_a_failure_after_zenml_has_the_run_ends_the_record(spec: RunSpec) -> None:
    bench = Bench(spec)

    def fail() -> None:
        raise ConnectionLostError("No token.")

    bench.zenml.on_created = fail
    with pytest.raises(ConnectionLostError):
        bench.create()
    assert bench.effects == ["create run", "publish metadata", "finalize run"]
    assert bench.zenml.run.status == "failed"
    assert bench.zenml.reasons == ["The run sandbox was not created: No token."]
    # So `list` shows it, and `status` its exit code.
    assert bench.zenml.metadata["modalrun_target"] == "local"
    assert bench.zenml.metadata["modalrun_exit_code"] == 8


@pytest.mark.parametrize("error", [CapacityError("Modal is full."), ConnectionLostError("Gone.")])
def test_a_failed_creation_ends_the_record(spec: RunSpec, error: ModalrunError) -> None:
    bench = Bench(spec)
    bench.fail("create sandbox", error)
    assert bench.submission.handle is None
    assert bench.effects[-3:] == ["create sandbox", "publish metadata", "finalize run"]
    assert bench.zenml.run.status == "failed"
    assert bench.zenml.reasons == [f"The run sandbox was not created: {error}"]
    # `status` shows the exit code of `submit`.
    assert bench.zenml.metadata["modalrun_exit_code"] == error.exit_code


def test_a_refusal_after_the_run_was_created_is_a_failed_run(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.effects.errors["create sandbox"] = UsageError("Modal refuses this: no GPU.")
    # Not 2, which says that nothing was created.
    with pytest.raises(RunFailedError, match=f"no GPU. The run {RUN_ID} is recorded as failed."):
        bench.create()
    assert bench.zenml.run.status == "failed"
    assert bench.zenml.reasons == ["The run sandbox was not created: Modal refuses this: no GPU."]
    assert bench.zenml.metadata["modalrun_exit_code"] == 1


def test_an_unknown_outcome_leaves_the_record_open(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.fail("create sandbox", UnknownOutcomeError("The answer was lost."))
    # By the announcement, `status` looks for the sandbox.
    assert bench.effects[-2:] == ["create sandbox", "publish metadata"]
    assert bench.zenml.metadata["modalrun_withdrawn"] is False
    assert not bench.zenml.run.finished


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), Interrupted()])
def test_an_interrupt_before_the_answer_ends_the_sandbox_and_the_record(
    spec: RunSpec, interrupt: BaseException
) -> None:
    bench = Bench(spec)
    bench.fail("create sandbox", interrupt)
    assert bench.submission.handle is None
    assert bench.effects[-4:] == ["create sandbox", TERMINATE, "finalize run", "publish metadata"]
    assert bench.zenml.reasons == ["The submission was interrupted."]
    assert bench.zenml.run.status == "stopped"
    assert bench.observer.lines[-1] == f"Cancelled the run {RUN_ID}; nothing of it is running."


def test_an_interrupt_while_modal_is_away_says_what_may_be_left(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.effects.errors[TERMINATE] = ConnectionLostError("Modal does not answer.")
    bench.fail("create sandbox", KeyboardInterrupt())
    assert bench.zenml.run.status == "stopped"
    assert bench.zenml.metadata["modalrun_withdrawn"] is False
    assert "Modal does not answer." in bench.observer.lines[-1]
    assert f"'modalrun stop --force {RUN_ID}'" in bench.observer.lines[-1]


@pytest.mark.parametrize("comes", [True, False])
def test_a_sandbox_that_may_come_after_the_interrupt_is_looked_for(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(creation, "CREATION_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(withdrawal, "WITHDRAW_SECONDS", 5.0 if comes else 0.1)
    monkeypatch.setattr(withdrawal, "WITHDRAW_PAUSE", 0.01)
    bench = Bench(spec)
    created, over = threading.Event(), threading.Event()
    main = threading.get_ident()

    def create(_: object) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        (created if comes else over).wait(30)

    looks = 0

    def terminate(*_: object) -> None:
        nonlocal looks
        looks += 1
        if looks < 3 or not comes:
            raise NotFoundError("There is no such sandbox.")
        created.set()

    bench.modal.on_create = create
    monkeypatch.setattr(bench.modal, "terminate", terminate)
    with interrupts.installed(), pytest.raises(KeyboardInterrupt):
        bench.create()
    interrupts.forget()
    over.set()
    assert bench.zenml.run.status == "stopped"
    assert bench.zenml.metadata["modalrun_withdrawn"] is comes
    last = bench.observer.lines[-1]
    assert f"Cancelled the run {RUN_ID}; nothing of it is running." in last
    assert (f"'modalrun stop --force {RUN_ID}' ends it." in last) == (not comes)
    assert looks == 3 if comes else looks > 3


def test_a_second_signal_does_not_interrupt_what_the_first_one_has_started(
    spec: RunSpec,
) -> None:
    bench = Bench(spec)
    main = threading.get_ident()

    def signals(_: object) -> None:
        # As Modal's SDK: nothing of it notices.
        signal.pthread_kill(main, signal.SIGTERM)
        threading.Event().wait(60)

    bench.modal.on_create = signals
    terminate = bench.modal.terminate

    def terminate_slowly(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        terminate(*arguments)

    bench.modal.terminate = terminate_slowly  # type: ignore[method-assign]
    with interrupts.installed(), pytest.raises(Interrupted):
        bench.create()
    interrupts.forget()
    assert bench.effects[-3:] == [TERMINATE, "finalize run", "publish metadata"]
    assert bench.zenml.run.status == "stopped"


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


def test_a_run_that_is_stopped_while_modal_creates_its_sandbox(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.zenml.stopping = True
    bench.zenml.run = replace(bench.zenml.run, status="stopping")
    bench.effects.errors["create sandbox"] = ConnectionLostError("The sandbox has ended.")
    with pytest.raises(RunStoppedError, match="stopped by somebody"):
        bench.create()
    assert bench.effects[-3:] == [TERMINATE, "finalize run", "publish metadata"]
    assert bench.zenml.metadata["modalrun_withdrawn"] is True
    assert bench.zenml.run.status == "stopped"


def test_a_run_that_is_stopped_before_its_sandbox_is_recorded(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.zenml.stopping = True
    bench.create()
    assert bench.effects[-2:] == ["record sandbox", "end sandboxes"]


def test_a_run_that_continues_in_another_sandbox(spec: RunSpec) -> None:
    previous = RunMetadata("local", "pipeline", "an-app", "ap-1", "sb-2", 600, earlier="sb-1")
    bench = Bench(spec, previous=previous)
    bench.create()
    assert bench.submission.handle is not None
    assert bench.submission.handle.resumed
    assert bench.modal.request["earlier"] == "sb-2"
    assert bench.zenml.metadata["modalrun_earlier"] == "sb-1,sb-2"
