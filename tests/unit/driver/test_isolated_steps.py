"""Run isolated steps of a dynamic pipeline: parallelism, lost sandboxes, takeover."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from modalrun.driver.graph import step_attempts
from modalrun.driver.graph.isolated_steps import IsolatedSteps
from modalrun.errors import ConflictError, RunFailedError
from modalrun.modal_api.sandboxes.capacity import GivenUp
from modalrun.modal_api.sandboxes.step_sandboxes import Refused
from modalrun.plan.isolated_step import IsolatedStep
from modalrun.run import contract, events
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import StepEvent
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import RunPlan, RunSettings
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.tags import TAG_RECORD

if TYPE_CHECKING:
    pass

SANDBOX = SandboxSpec(("python",), "im-1", Resources(), 300)
DONE = SandboxExit(ExitKind.COMPLETED, 0, "The step completed.")
KILLED = SandboxExit(ExitKind.TERMINATED, 137, "It was killed.")
FAILED = SandboxExit(ExitKind.FAILED, 1, "It raised.")
SECONDS = 10.0


class Box:
    """A sandbox that ends when the test says so."""

    def __init__(self, spec: SandboxSpec) -> None:
        self.id = f"sb-{spec.name}"
        self.name = spec.name
        self.gpu = None
        self.tags = spec.tags
        self.record = spec.tags[TAG_RECORD]
        self.attempt = int(spec.tags["modalrun-attempt"])
        self.written: list[str] = []
        # As a step whose code unwinds.
        self.unwinds = False
        self._end: Future[SandboxExit] = Future()

    async def write(self, text: str) -> None:
        self.written.append(text)
        if self.unwinds:
            self.end(FAILED)

    def end(self, end: SandboxExit) -> None:
        if not self._end.done():
            self._end.set_result(end)

    async def ended(self) -> SandboxExit:
        return await asyncio.shield(asyncio.wrap_future(self._end))

    async def terminate(self) -> None:
        self.end(KILLED)


class Boxes:
    """Create sandboxes as `StepSandboxes` does."""

    def __init__(self) -> None:
        self.created: list[Box] = []
        self.left_by_others: list[Box] = []
        self.refuses = False
        self.conflicts = 0
        self.full = False
        self.waiting = False
        self.news = threading.Condition()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def create(
        self, spec: SandboxSpec, given_up: asyncio.Event, *, on_wait: Any, **_: Any
    ) -> Box:
        if given_up.is_set():
            raise GivenUp
        if self.full:
            on_wait(CapacityWait("H100", None, 0.0))
            with self.news:
                self.waiting = True
                self.news.notify_all()
            await given_up.wait()
            on_wait(None)
            raise GivenUp
        if self.refuses:
            raise Refused("no such secret")
        if self.conflicts:
            self.conflicts -= 1
            raise ConflictError("Modal can't do this now: loading container failed")
        box = Box(spec)
        with self.news:
            self.created.append(box)
            self.news.notify_all()
        return box

    async def running(self, names: Any = ()) -> list[Box]:
        return [*self.created, *self.left_by_others]

    async def terminate_all(self) -> None:
        for box in self.created:
            await box.terminate()

    def wait(self, count: int) -> Box:
        """Wait until so many sandboxes have been created; returns the last one."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.created) >= count, SECONDS)
        return self.created[count - 1]


@pytest.fixture
def boxes() -> Iterator[Boxes]:
    made = Boxes()
    yield made
    for box in [*made.created, *made.left_by_others]:
        box.end(FAILED)


def steps(boxes: Boxes, **settings: Any) -> IsolatedSteps:
    plan = RunPlan("local", "p", RunSettings(app_name="a", mode="per_step", **settings), SANDBOX)
    manifest = RunManifest("run", plan, "stop_on_failure")
    return IsolatedSteps(manifest, cast("Any", boxes))


def step(name: str, attempt: int = 1) -> IsolatedStep:
    return IsolatedStep(name, f"record-{name}", "run", attempt, SANDBOX)


def in_thread(action: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread, errors


def test_max_parallelism_bounds_the_sandboxes(boxes: Boxes) -> None:
    isolated = steps(boxes, max_parallelism=1)
    isolated.submit(step("one"))
    second, errors = in_thread(lambda: isolated.submit(step("two")))
    second.join(0.1)
    assert second.is_alive()
    assert len(boxes.created) == 1

    boxes.created[0].end(DONE)
    boxes.wait(2).end(DONE)
    second.join(SECONDS)
    assert isolated.exit_of("record-two", wait=True) == DONE
    assert not errors


def test_a_step_that_waits_for_a_slot_is_not_started_when_the_run_fails(boxes: Boxes) -> None:
    isolated = steps(boxes, max_parallelism=1)
    isolated.submit(step("one"))
    second, errors = in_thread(lambda: isolated.submit(step("two")))
    isolated.close_run("run")
    boxes.created[0].end(FAILED)
    second.join(SECONDS)
    assert isolated.exit_of("record-one", wait=True) == FAILED
    assert isinstance(errors[0], RunFailedError)
    assert len(boxes.created) == 1


@pytest.mark.parametrize("how", ["stop", "close_run", "terminate_all"])
def test_the_wait_for_a_sandbox_is_given_up(boxes: Boxes, how: str) -> None:
    isolated = steps(boxes, max_parallelism=1)
    told: list[dict[str, str]] = []
    isolated.on_waits = told.append
    boxes.full = True
    first, errors = in_thread(lambda: isolated.submit(step("one")))
    with boxes.news:
        assert boxes.news.wait_for(lambda: boxes.waiting, SECONDS)
    arguments = {"stop": ["record-one"], "close_run": ["run"], "terminate_all": []}[how]
    getattr(isolated, how)(*arguments)
    first.join(SECONDS)
    assert isinstance(errors[0], RunFailedError)
    assert told == [{"one": "waiting for H100"}, {}]
    # Its slot is free, and another process may continue the run.
    boxes.full = False
    isolated.reopen()
    isolated.submit(step("two"))
    boxes.created[0].end(DONE)
    assert isolated.exit_of("record-two", wait=True) == DONE


def test_a_refused_sandbox_releases_its_slot(boxes: Boxes) -> None:
    isolated = steps(boxes, max_parallelism=1)
    boxes.refuses = True
    with pytest.raises(RunFailedError, match="no such secret"):
        isolated.submit(step("one"))
    boxes.refuses = False
    isolated.submit(step("two"))
    boxes.created[0].end(DONE)
    assert isolated.exit_of("record-two", wait=True) == DONE


def test_a_step_of_a_child_pipeline_is_told_from_its_parents(
    boxes: Boxes, capsys: pytest.CaptureFixture[str]
) -> None:
    isolated = steps(boxes)
    isolated.submit(IsolatedStep("inc", "record-inc", "child", 1, SANDBOX, "inner/"))
    boxes.created[0].end(DONE)
    assert isolated.exit_of("record-inc", wait=True) == DONE
    told = [events.read(line) for line in capsys.readouterr().out.split("\n")]
    assert {event.step for event in told if isinstance(event, StepEvent)} == {"inner/inc"}


def test_a_lost_sandbox_is_replaced_for_the_same_record(
    boxes: Boxes, capsys: pytest.CaptureFixture[str]
) -> None:
    isolated = steps(boxes, infrastructure_retries=1)
    isolated.submit(step("train", attempt=2))
    boxes.created[0].end(KILLED)
    second = boxes.wait(2)
    assert second.record == boxes.created[0].record
    assert second.name != boxes.created[0].name
    second.end(KILLED)
    # Once, as the settings say.
    assert isolated.exit_of("record-train", wait=True) == KILLED
    assert len(boxes.created) == 2
    out = capsys.readouterr().out
    assert "It is started again (1 of 1), without using up a retry." in out
    told = [events.read(line) for line in out.split("\n")]
    assert {(e.attempt, e.tries) for e in told if isinstance(e, StepEvent)} == {(2, 2), (3, 2)}


def test_a_sandbox_that_could_not_start_is_asked_for_again(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_attempts, "START_PAUSE", 0.01)
    boxes.conflicts = 2
    isolated = steps(boxes, infrastructure_retries=2)
    isolated.submit(step("train"))
    (box,) = boxes.created
    # It is another sandbox, and Modal may find the first one by its name.
    assert box.attempt == 3
    box.end(DONE)
    assert isolated.exit_of("record-train", wait=True) == DONE
    again = "loading container failed. It is started again (2 of 2), without using up a retry."
    assert again in capsys.readouterr().out

    boxes.conflicts = 3
    with pytest.raises(RunFailedError, match="loading container failed"):
        isolated.submit(step("late"))


def test_failed_stopped_and_recorded_steps_are_not_replaced(
    boxes: Boxes, capsys: pytest.CaptureFixture[str]
) -> None:
    isolated = steps(boxes)
    for name in ("failed", "stopped", "recorded"):
        isolated.submit(step(name))
    failed, _stopped, recorded = boxes.created
    failed.end(FAILED)
    isolated.stop("record-stopped")
    isolated.end_of_record = lambda record: "completed" if record == "record-recorded" else None
    recorded.end(KILLED)
    assert isolated.exit_of("record-failed", wait=True) == FAILED
    stopped = isolated.exit_of("record-stopped", wait=True)
    assert stopped == replace(KILLED, reason="It was ended early: the run has failed.")
    assert isolated.exit_of("record-recorded", wait=True) == KILLED
    assert len(boxes.created) == 3
    read = [events.read(line) for line in capsys.readouterr().out.split("\n")]
    states = {event.step: event.state for event in read if isinstance(event, StepEvent)}
    assert states == {"failed": "failed", "stopped": "stopped", "recorded": "completed"}


@pytest.mark.parametrize("closed", [False, True])
def test_a_failure_that_a_retry_follows_is_told_as_one(
    boxes: Boxes, capsys: pytest.CaptureFixture[str], closed: bool
) -> None:
    isolated = steps(boxes)
    isolated.end_of_record = lambda record: "retrying"
    isolated.submit(step("train"))
    if closed:
        isolated.close_run("run")
    boxes.created[0].end(FAILED)
    assert isolated.exit_of("record-train", wait=True) == FAILED
    read = [events.read(line) for line in capsys.readouterr().out.split("\n")]
    last = [(event.state, event.reason) for event in read if isinstance(event, StepEvent)][-1]
    again = ("retrying", f"{FAILED.reason} It is tried again.")
    assert last == (("failed", FAILED.reason) if closed else again)


def test_a_retry_of_the_user_gets_a_sandbox_with_another_name(boxes: Boxes) -> None:
    isolated = steps(boxes)
    isolated.submit(step("train"))
    boxes.created[0].end(KILLED)
    boxes.wait(2).end(FAILED)
    isolated.exit_of("record-train", wait=True)
    isolated.submit(IsolatedStep("train", "record-2", "run", 2, SANDBOX))
    assert [box.attempt for box in boxes.created] == [1, 2, 3]
    assert len({box.name for box in boxes.created}) == 3


def test_another_driver_adopts_found_sandboxes_and_replaces_lost_ones(
    boxes: Boxes,
) -> None:
    first = steps(boxes)
    first.submit(step("found"))
    (found,) = boxes.left_by_others = boxes.created
    boxes.created = []
    isolated = steps(boxes)
    isolated.take_over(step("found"))
    isolated.take_over(step("lost"))
    boxes.wait(1).end(DONE)
    assert isolated.exit_of("record-lost", wait=True) == DONE
    assert isolated.exit_of("record-found") is None
    found.end(DONE)
    assert isolated.exit_of("record-found", wait=True) == DONE
    assert len(boxes.created) == 1


def test_no_sandbox_is_created_after_terminate_all(boxes: Boxes) -> None:
    isolated = steps(boxes)
    isolated.submit(step("one"))
    isolated.terminate_all()
    assert isolated.exit_of("record-one", wait=True) == KILLED
    with pytest.raises(RunFailedError):
        isolated.submit(step("two"))
    assert len(boxes.created) == 1


@pytest.mark.parametrize(("unwinds", "end"), [(True, FAILED), (False, KILLED)])
def test_at_the_timeout_of_the_run_the_code_of_a_step_may_unwind(
    boxes: Boxes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unwinds: bool,
    end: SandboxExit,
) -> None:
    reason = tmp_path / "reason"
    # User code can write the file: the second line would be another order.
    reason.write_text("The run took too long.\nstop", encoding="utf-8")
    monkeypatch.setenv(contract.END_REASON_FILE, str(reason))
    monkeypatch.setenv(contract.TIMEOUT, "1")
    isolated = steps(boxes)
    isolated.submit(step("one"))
    (box,) = boxes.created
    box.unwinds = unwinds

    isolated.terminate_all()

    assert isolated.exit_of("record-one", wait=True) == end
    assert box.written == ["end The run took too long. stop\n"]
