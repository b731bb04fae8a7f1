"""Attach to a run: to its end, and what signals, a lost connection and a gone reader do."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from modalrun.errors import AuthenticationError, ConnectionLostError, Interrupted
from modalrun.observe import attach
from modalrun.observe.handle import RunHandle
from modalrun.observe.interrupt_prompt import QUESTION, OnInterrupt
from modalrun.observe.outcome import accepted
from modalrun.run import events
from modalrun.run.events import StepEvent
from modalrun.run.outcome import Outcome
from modalrun.run.records import StepRecord
from modalrun.run.run_plan import Mode, PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_exit import SandboxExit, read_exit
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.util import interrupts
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import (
    RUN_ID,
    Effects,
    FakeConnection,
    FakeModal,
    FakeObserver,
    FakeSandbox,
    FakeSandboxes,
)


class Bench:
    """A run to attach to."""

    def __init__(self, mode: Mode = "pipeline") -> None:
        self.effects = Effects()
        self.zenml = FakeZenML(self.effects)
        self.modal = FakeModal(self.effects)
        self.observer = FakeObserver()
        self.sandbox = FakeSandbox("sb-run")
        self.sandboxes = FakeSandboxes(self.effects)
        self.on_stop: Callable[[], None] = self.end_stopped
        spec = SandboxSpec(("x",), "im-1", Resources(cpu=1.0, memory=1024), 60)
        steps = tuple(
            PlannedStep(name, sandbox=spec if mode == "per_step" else None)
            for name in ("load", "train")
        )
        recording = threading.Thread(target=lambda: self.effects.add("recorded"))
        recording.start()
        self.handle = RunHandle(
            RUN_ID,
            None,
            RunPlan("local", "training", RunSettings(mode=mode, app_name="app"), spec, steps),
            ("load", "train"),
            self.sandbox,
            self.sandboxes,
            FakeConnection(),
            recording,
        )

    def prints(self, text: str) -> None:
        self.modal.streams.feed("sb-run", text)

    def ends(self, exit_code: int, status: str, *steps: StepRecord) -> None:
        """End the sandbox, with this record in ZenML."""
        self.zenml.run = replace(self.zenml.run, status=status)
        self.zenml.steps = steps
        self.modal.streams.end("sb-run")
        self.sandbox.finish(exit_code)

    def end_stopped(self) -> None:
        self.ends(137, "stopped")

    def follow(
        self,
        on_interrupt: OnInterrupt = "detach",
        *,
        interrupted: int | None = None,
        keys: str = "",
        while_asking: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Attach; press the keys once a question is shown."""

        def stop(run_id: str, sandboxes: object, *, seconds: float) -> None:
            assert (run_id, sandboxes) == (RUN_ID, self.sandboxes)
            self.effects.add("stop")
            self.on_stop()

        @contextlib.contextmanager
        def read_keys(listener: Callable[[str], None]) -> Iterator[None]:
            for key in keys:
                listener(key)
            while_asking()
            yield

        with interrupts.installed():
            return attach.follow(
                self.handle,
                self.observer,
                on_interrupt,
                stop=stop,
                interrupted=interrupted,
                zenml=self.zenml,
                modal=self.modal,
                read_keys=read_keys,
            )

    @property
    def said(self) -> str:
        return "\n".join(self.observer.lines)


def test_a_run_is_followed_to_its_end() -> None:
    bench = Bench()
    bench.prints(events.line(StepEvent("train", "running", 10.0)))
    bench.prints("epoch 1\nep")
    bench.prints("och 2\n")
    bench.ends(0, "completed", StepRecord("load", "cached"), StepRecord("train", "completed"))
    outcome = bench.follow()
    assert (outcome.exit_code, outcome.headline) == (0, "Run completed.")
    assert bench.observer.output == ["epoch 1", "epoch 2"]
    assert bench.observer.phases == ["Waiting for the first step"]
    assert [(step.name, step.state) for step in outcome.steps] == [
        ("load", "cached"),
        ("train", "completed"),
    ]
    assert ("status", f"modalrun status {RUN_ID}") in outcome.details
    assert "stop" not in bench.effects


def test_the_end_of_a_run_that_could_not_record_it_is_recorded() -> None:
    bench = Bench()
    bench.ends(1, "running")
    outcome = bench.follow()
    assert (outcome.exit_code, outcome.headline) == (1, "Run failed.")
    assert bench.zenml.reasons == ["The run sandbox ended (failed, exit code 1)."]


def test_a_paused_run_shows_how_to_answer() -> None:
    bench = Bench()
    bench.ends(0, "paused")
    details = dict(bench.follow().details)
    assert details["resume"] == f"modalrun resume {RUN_ID}"


def test_a_timeout_says_from_where_it_counts() -> None:
    bench = Bench()
    bench.ends(124, "failed")
    outcome = bench.follow()
    assert (outcome.exit_code, outcome.headline) == (6, "Run timed out after 60 s.")
    assert "counts from the creation of the sandbox" in dict(outcome.details)["next"]


def test_an_end_without_a_record_says_what_to_do_next() -> None:
    bench = Bench()
    bench.ends(70, "failed")
    outcome = bench.follow()
    assert outcome.exit_code == 1
    assert dict(outcome.details)["next"] == "see its output before it is run again"


def test_a_signal_detaches() -> None:
    bench = Bench()
    with pytest.raises(KeyboardInterrupt):
        bench.follow("detach", interrupted=signal.SIGINT)
    assert f"Detached. The run {RUN_ID} continues in its sandbox." in bench.said
    assert f"modalrun logs --follow {RUN_ID}" in bench.said
    assert "stop" not in bench.effects
    # A call that outlives the SDK's client would be reported at the end of the process.
    assert bench.sandbox.cancelled


def test_a_signal_stops_the_run() -> None:
    bench = Bench()
    outcome = bench.follow("stop", interrupted=signal.SIGTERM)
    assert (outcome.exit_code, outcome.headline) == (
        143,
        "Run stopped because of the interrupt.",
    )
    # Others can find the run before it is stopped.
    assert bench.effects.index("recorded") < bench.effects.index("stop")


def test_a_signal_stops_a_run_that_zenml_does_not_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "_RECORD_SECONDS", 0.1)
    bench = Bench()
    over = threading.Event()
    recording = threading.Thread(target=over.wait)
    recording.start()
    bench.handle = replace(bench.handle, recording=recording)
    assert bench.follow("stop", interrupted=signal.SIGTERM).exit_code == 143
    over.set()


@pytest.mark.parametrize("keys", ["s", "xS"])
def test_the_answer_to_ctrl_c_stops_the_run(keys: str) -> None:
    bench = Bench()
    assert bench.follow("ask", interrupted=signal.SIGINT, keys=keys).exit_code == 130
    assert bench.observer.questions == [QUESTION, None]


def test_the_answer_to_ctrl_c_detaches() -> None:
    bench = Bench()
    with pytest.raises(KeyboardInterrupt):
        bench.follow("ask", interrupted=signal.SIGINT, keys="d")
    assert "Detached." in bench.said
    assert bench.observer.questions == [QUESTION, None]


@pytest.mark.parametrize("key", ["g", "\n", "\x1b"])
def test_the_answer_to_ctrl_c_goes_on(key: str) -> None:
    bench = Bench()
    outcome = bench.follow(
        "ask",
        interrupted=signal.SIGINT,
        keys=key,
        while_asking=lambda: bench.ends(0, "completed"),
    )
    assert (outcome.exit_code, bench.observer.questions) == (0, [QUESTION, None])


def test_a_sigterm_detaches_where_ctrl_c_asks() -> None:
    bench = Bench()
    with pytest.raises(Interrupted):
        bench.follow("ask", interrupted=signal.SIGTERM)
    assert bench.observer.questions == []


def test_a_second_signal_leaves_at_once() -> None:
    bench = Bench()
    with pytest.raises(KeyboardInterrupt):
        bench.follow(
            "ask",
            interrupted=signal.SIGINT,
            while_asking=lambda: signal.raise_signal(signal.SIGINT),
        )
    assert "Detached at once." in bench.said
    assert bench.observer.questions == [QUESTION, None]
    assert "stop" not in bench.effects


def test_a_second_signal_while_the_run_is_stopped() -> None:
    bench = Bench()
    left = threading.Event()

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        left.wait()

    bench.on_stop = stop
    with pytest.raises(KeyboardInterrupt):
        bench.follow("stop", interrupted=signal.SIGINT)
    left.set()
    assert "The end of the run is not confirmed yet." in bench.said
    assert f"modalrun stop {RUN_ID}" in bench.said


def test_a_stop_that_fails() -> None:
    bench = Bench()
    bench.effects.errors["stop"] = ConnectionLostError("Modal can't be reached.")
    with pytest.raises(KeyboardInterrupt):
        bench.follow("stop", interrupted=signal.SIGINT)
    assert "The run may not have ended: Modal can't be reached." in bench.said


def test_the_reader_of_the_output_has_gone() -> None:
    bench = Bench()
    bench.observer.reader_gone = True
    bench.prints("one\ntwo\n")
    bench.prints(events.line(StepEvent("train", "running", 10.0)) + "three\n")
    with pytest.raises(BrokenPipeError):
        bench.follow()
    assert f"The reader of the output has gone. The run {RUN_ID} continues" in bench.said
    assert "stop" not in bench.effects


def test_a_lost_connection() -> None:
    bench = Bench()
    bench.sandbox.finish(ConnectionLostError("Modal can't be reached."))
    with pytest.raises(ConnectionLostError, match="may still be going") as raised:
        bench.follow()
    assert raised.value.hint == f"Look with 'modalrun status {RUN_ID}'."


@pytest.mark.parametrize("status", ["running", "provisioning"])
def test_a_driver_that_was_killed_leaves_its_steps(status: str) -> None:
    bench = Bench("per_step")
    bench.sandboxes.steps = 2
    # The step sandboxes' streams go on, and are not waited for.
    bench.prints(events.line(StepEvent("train", "running", 10.0, sandbox="sb-train")))
    bench.zenml.run = replace(bench.zenml.run, status=status)
    bench.sandbox.finish(137)
    outcome = bench.follow()
    assert outcome.exit_code == 7
    assert outcome.headline == (
        "The run's driver was ended from outside (step sandboxes that still run: 2)."
        " The run is not over."
    )
    assert ("resume", f"modalrun resume {RUN_ID}") in outcome.details
    assert "finalize run" not in bench.effects


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (read_exit(137, 8), "was evicted by Modal for the memory that it used"),
        (read_exit(130), "was ended by Modal, as when it preempts one"),
        (read_exit(137, 6), "was ended by Modal, as when it preempts one"),
        (read_exit(0, 2), "is gone"),
        (read_exit(1, 5), "could not start"),
    ],
)
def test_any_driver_that_is_gone_leaves_a_run_that_can_be_resumed(
    end: SandboxExit, how: str
) -> None:
    bench = Bench("per_step")
    bench.zenml.run = replace(bench.zenml.run, status="running")
    bench.modal.streams.end("sb-run")
    bench.sandbox.finish(end)
    outcome = bench.follow()
    assert outcome.exit_code == 7
    assert outcome.headline == f"The run's driver {how}. The run is not over."
    assert {step.state for step in outcome.steps} == {"waiting"}
    assert "finalize run" not in bench.effects


@pytest.mark.parametrize(
    ("mode", "end", "lines"),
    [
        ("pipeline", read_exit(137), ["last words of sb-run"]),
        # Modal's timeout has come before the end was recorded.
        ("pipeline", read_exit(124, 4), ["last words of sb-run"]),
        ("pipeline", read_exit(1), ()),
        # The driver's own lines are no step's.
        ("per_step", read_exit(124, 4), ()),
    ],
)
def test_the_last_lines_of_a_sandbox_that_was_ended_as_a_whole_are_recorded(
    mode: Mode, end: SandboxExit, lines: Sequence[str]
) -> None:
    bench = Bench(mode)
    bench.zenml.run = replace(bench.zenml.run, status="running")
    bench.modal.streams.end("sb-run")
    bench.sandbox.finish(end)
    bench.follow()
    assert bench.zenml.lines == lines


def test_a_failure_with_exit_code_0_is_recorded_in_words() -> None:
    bench = Bench()
    bench.zenml.run = replace(bench.zenml.run, status="running")
    bench.modal.streams.end("sb-run")
    bench.sandbox.finish(read_exit(0, 2))
    bench.follow()
    said = "The run sandbox ended (Modal reports a failure, with exit code 0)."
    assert bench.zenml.reasons == [said]


@pytest.mark.parametrize("status", ["stopping", "failed"])
def test_a_run_that_somebody_ended_by_force_is_over(status: str) -> None:
    bench = Bench("per_step")
    bench.ends(137, status)
    outcome = bench.follow()
    assert outcome.exit_code == 7
    assert outcome.headline.startswith(f"Run {bench.zenml.run.status}")
    assert "finalize run" in bench.effects


def test_zenml_is_away_at_the_end() -> None:
    bench = Bench()
    bench.ends(0, "completed")
    bench.effects.errors["finalize run"] = ConnectionLostError("The server is away.")
    with pytest.raises(ConnectionLostError, match=r"ended \(completed\), but ZenML can't be asked"):
        bench.follow()


def test_zenml_refuses_the_credentials_at_the_end() -> None:
    bench = Bench()
    bench.ends(0, "completed")
    bench.effects.errors["finalize run"] = AuthenticationError("Expired.", hint="Log in.")
    with pytest.raises(AuthenticationError) as raised:
        bench.follow()
    assert raised.value.hint is not None and raised.value.hint.startswith("Log in. Then 'modalrun")


def test_an_accepted_run_can_be_found() -> None:
    bench = Bench()
    outcome = accepted(bench.handle)
    assert (outcome.asynchronous, outcome.exit_code, bench.effects) == (True, 0, ["recorded"])
    assert dict(outcome.details)["stop"] == f"modalrun stop {RUN_ID}"
