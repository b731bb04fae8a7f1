"""Withdraw a submission that fails or is interrupted."""

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
from modalrun.modal_api.sandboxes.capacity import GivenUp
from modalrun.run.records import CreatedRun, Placeholder
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import creation, lean, withdrawal
from modalrun.util import interrupts
from tests.unit.fakes import RUN_ID
from tests.unit.submit.submission_bench import TERMINATE, Bench


@pytest.fixture
def spec(tmp_path: Path, load: Callable[[str], RunSpec]) -> RunSpec:
    """A run spec beside a source tree of one module."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "training.py").write_text("")
    return load("pipeline: training.pipeline\ntarget: local\nsource_root: src\n")


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


@pytest.mark.parametrize("function", ["resolve_images", "create_run"])
def test_a_run_that_zenml_has_created_ends_with_whatever_fails(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    bench = Bench(spec)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.zenml, function, fail)
    with pytest.raises(OSError, match="No space"):
        bench.create(RUN_ID)
    assert bench.zenml.run.status == "failed"
    assert bench.zenml.reasons == ["The run sandbox was not created: No space left on device."]


def test_an_interrupt_before_there_is_a_run_says_so(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(spec)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.zenml, "resolve_images", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.create()
    assert bench.effects == []
    assert bench.observer.lines == ["Interrupted; nothing was submitted."]


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


@pytest.mark.parametrize(
    ("error", "problem", "exit_code"),
    [
        (OSError(28, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device.", 8),
        (MemoryError(), "This machine has no memory left for modalrun.", 8),
        (RuntimeError("status 418"), "RuntimeError: status 418", 70),
    ],
)
def test_an_error_of_this_machine_is_no_interrupt(
    spec: RunSpec, error: Exception, problem: str, exit_code: int
) -> None:
    bench = Bench(spec)
    bench.fail("create sandbox", error)
    # Modal may have created the sandbox.
    # Modal and ZenML are asked at the same time.
    assert set(bench.effects[-3:]) == {TERMINATE, "publish metadata", "finalize run"}
    assert bench.zenml.run.status == "failed"
    assert bench.zenml.reasons == [f"The run sandbox was not created: {problem}"]
    assert bench.zenml.metadata["modalrun_exit_code"] == exit_code
    assert "Cancelled" not in "".join(bench.observer.lines)


def test_a_reader_of_the_output_that_leaves_cancels_the_run(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.fail("create sandbox", BrokenPipeError())
    assert bench.zenml.run.status == "stopped"


@pytest.mark.parametrize("error", [CapacityError("Modal is full."), KeyboardInterrupt()])
@pytest.mark.parametrize("away", [ConnectionLostError("ZenML is away."), OSError(28, "Full.")])
def test_zenml_is_away_when_a_submission_ends(
    spec: RunSpec, error: BaseException, away: Exception
) -> None:
    bench = Bench(spec)
    bench.effects.errors |= {"publish metadata": away, "finalize run": away}
    bench.fail("create sandbox", error)
    told = next(line for line in bench.observer.lines if "is not recorded" in line)
    assert "ZenML is away." in told or "Full." in told
    assert told.endswith(f"'modalrun reconcile --force {RUN_ID}' records it.")


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
    assert bench.effects[-1] == "create sandbox"
    # By the announcement, `status` looks for the sandbox.
    assert bench.zenml.metadata["modalrun_withdrawn"] is False
    assert not bench.zenml.run.finished


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), Interrupted()])
def test_an_interrupt_before_the_answer_ends_the_sandbox_and_the_record(
    spec: RunSpec, interrupt: BaseException
) -> None:
    bench = Bench(spec)
    bench.fail("create sandbox", interrupt)
    assert bench.submission.handle is None
    assert bench.effects[-4] == "create sandbox"
    assert set(bench.effects[-3:-1]) == {TERMINATE, "finalize run"}
    assert bench.effects[-1] == "publish metadata"
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
    assert set(bench.effects[-3:-1]) == {TERMINATE, "finalize run"}
    assert bench.effects[-1] == "publish metadata"
    assert bench.zenml.run.status == "stopped"


def test_a_run_that_is_stopped_while_modal_creates_its_sandbox(spec: RunSpec) -> None:
    bench = Bench(spec)
    bench.zenml.stopping = True
    bench.zenml.run = replace(bench.zenml.run, status="stopping")
    bench.effects.errors["create sandbox"] = ConnectionLostError("The sandbox has ended.")
    with pytest.raises(RunStoppedError, match="stopped by somebody"):
        bench.create()
    assert set(bench.effects[-3:-1]) == {TERMINATE, "finalize run"}
    assert bench.effects[-1] == "publish metadata"
    assert bench.zenml.metadata["modalrun_withdrawn"] is True
    assert bench.zenml.run.status == "stopped"


class Hanging:
    """A call in another thread that a signal interrupts, and that hangs until it is released."""

    def __init__(self) -> None:
        self._main = threading.get_ident()
        self._released = threading.Event()

    def __call__(self, *_: Any, **__: Any) -> Any:
        signal.pthread_kill(self._main, signal.SIGINT)
        self._released.wait(30)

    def __enter__(self) -> Hanging:
        return self

    def __exit__(self, *_: object) -> None:
        interrupts.forget()
        self._released.set()


def interrupted(spec: RunSpec, monkeypatch: pytest.MonkeyPatch, at: str) -> Bench:
    """Submit a run, whose creation a signal interrupts while a call of ZenML's hangs."""
    monkeypatch.setattr(lean, "RECORD_GRACE_SECONDS", 0.1)
    bench = Bench(spec)
    with Hanging() as hanging, interrupts.installed():
        setattr(bench.zenml, at, hanging)
        with pytest.raises(KeyboardInterrupt):
            bench.create()
    return bench


def test_a_signal_while_zenml_does_not_answer_says_what_may_be_left(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = interrupted(spec, monkeypatch, "create_run")
    assert not bench.effects
    assert "has not answered" in bench.observer.lines[-1]
    assert "'modalrun reconcile --force RUN'" in bench.observer.lines[-1]


def test_a_signal_does_not_wait_for_the_token_of_a_run(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = interrupted(spec, monkeypatch, "on_created")
    assert bench.zenml.run.status == "stopped"


def test_two_signals_while_the_run_is_created_cancel_it(spec: RunSpec) -> None:
    bench = Bench(spec)
    main, create = threading.get_ident(), bench.zenml.create_run
    given_up = threading.Event()
    bench.observer.on_line = lambda _: given_up.set()

    def interrupted(placeholder: Placeholder) -> CreatedRun:
        signal.pthread_kill(main, signal.SIGINT)
        # The first one has been handled when the second one comes.
        while interrupts.pending() is None:
            given_up.wait(0.01)
        given_up.clear()
        signal.pthread_kill(main, signal.SIGTERM)
        assert not given_up.wait(0.3), "the second signal has left the run behind"
        return create(placeholder)

    bench.zenml.create_run = interrupted  # type: ignore[method-assign]
    with interrupts.installed(), pytest.raises((KeyboardInterrupt, Interrupted)):
        bench.create()
    interrupts.forget()
    assert bench.zenml.run.status == "stopped"
    assert bench.observer.lines[-1] == f"Cancelled the run {RUN_ID}; nothing of it is running."


@pytest.mark.parametrize("error", [CapacityError("Modal is full."), Interrupted()])
def test_a_withdrawal_that_zenml_holds_up_ends_soon_after_a_signal(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(withdrawal, "SECONDS", 0.1)
    bench = Bench(spec)
    with Hanging() as hanging, interrupts.installed():
        bench.zenml.finalize_run = hanging  # type: ignore[method-assign]
        # A signal that comes second has the last word only if the first one was a signal, too.
        expected = CapacityError if isinstance(error, CapacityError) else KeyboardInterrupt
        bench.effects.errors["create sandbox"] = error
        with pytest.raises(expected):
            bench.create()
    told = next(line for line in bench.observer.lines if "What is left of" in line)
    assert f"'modalrun stop --force {RUN_ID}'" in told
