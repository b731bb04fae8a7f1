"""Run the steps of a pipeline in one process: order, failures, retries, stops."""

import contextvars
import threading
from pathlib import Path
from typing import Any

import pytest

from modalrun.driver import pipeline as driver_runner
from modalrun.driver.pipeline import Terminated, run
from modalrun.errors import RunStopped
from modalrun.run import events
from modalrun.run.contract import MAX_PARALLELISM

DIAMOND = {"load": (), "left": ("load",), "right": ("load",), "join": ("left", "right")}


class Steps:
    """Fake `StepRunner`: each step fails as often as the test says."""

    def __init__(
        self,
        graph: dict[str, tuple[str, ...]],
        *,
        failures: dict[str, int] | None = None,
        done: set[str] | None = None,
        mode: str = "stop_on_failure",
        retries: tuple[int, float, float] = (0, 0, 1),
    ) -> None:
        self.graph = graph
        self.done = done or set()
        self.failure_mode = mode
        self.failures = dict(failures or {})
        self.retries = retries
        self.launched: list[str] = []
        self.cleaned_up = 0

    def retry_policy(self, name: str) -> tuple[int, float, float]:
        return self.retries

    def launch(self, name: str) -> bool:
        self.launched.append(name)
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise ValueError(f"{name} went wrong")
        return True

    def cleanup(self) -> None:
        self.cleaned_up += 1


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MAX_PARALLELISM, raising=False)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(driver_runner.time, "sleep", slept.append)
    return slept


def go(steps: Steps, stop: threading.Event | None = None) -> bool:
    return run(steps, stop)  # type: ignore[arg-type]


def step_events(text: str) -> list[tuple[str, str, int]]:
    """Return the step events on stdout: step, state, attempt."""
    found = [events.read(line) for line in text.split("\n")]
    return [(e.step, e.state, e.attempt) for e in found if isinstance(e, events.StepEvent)]


def test_all_steps_in_graph_order() -> None:
    steps = Steps(DIAMOND)
    assert go(steps)
    assert steps.launched == ["load", "left", "right", "join"]
    assert steps.cleaned_up == 1


def test_done_steps_are_not_run_again() -> None:
    steps = Steps(DIAMOND, done={"load", "left"})
    assert go(steps)
    assert steps.launched == ["right", "join"]


@pytest.mark.parametrize("mode", ["stop_on_failure", "fail_fast"])
def test_nothing_starts_after_a_failure(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(DIAMOND, failures={"left": 1}, mode=mode)
    assert not go(steps)
    assert steps.launched == ["load", "left"]
    assert steps.cleaned_up == 1
    shown = capsys.readouterr().err.splitlines()
    assert "ValueError: left went wrong" in shown
    assert shown[-2:] == [
        "Step `right` is not run: step `left` failed.",
        "Step `join` is not run: step `left` failed.",
    ]


def test_continuing_skips_only_dependents_of_the_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    graph = {**DIAMOND, "after": ("join",), "other": ()}
    steps = Steps(graph, failures={"left": 1}, mode="continue_on_failure")
    assert not go(steps)
    assert steps.launched == ["load", "left", "right", "other"]
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "Step `join` is not run: `left` did not succeed.",
        "Step `after` is not run: `join` did not succeed.",
    ]


def test_retries(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps({"load": ()}, failures={"load": 2}, retries=(3, 1.5, 2))
    assert go(steps)
    assert steps.launched == ["load"] * 3
    assert pauses == [1.5, 3.0]
    assert "Step `load` failed; retry 1 of 3 in 1.5 s.\n" in capsys.readouterr().err


def test_retries_are_limited(pauses: list[float]) -> None:
    steps = Steps({"load": (), "next": ()}, failures={"load": 9}, retries=(2, 0, 1))
    assert not go(steps)
    assert steps.launched == ["load"] * 3
    assert len(pauses) == 2


@pytest.mark.parametrize("end", [Terminated, RunStopped])
def test_a_termination_is_no_failure_and_is_not_retried(
    pauses: list[float], end: type[BaseException]
) -> None:
    class Ended(Steps):
        def launch(self, name: str) -> bool:
            super().launch(name)
            raise end

    steps = Ended(DIAMOND, retries=(3, 0, 1))
    with pytest.raises(end):
        go(steps)
    assert steps.launched == ["load"]
    assert pauses == []


class Asked(Steps):
    """Somebody asks for a stop while a certain step runs."""

    def __init__(self, graph: dict[str, tuple[str, ...]], during: str, **more: Any) -> None:
        super().__init__(graph, **more)
        self.during = during
        self.stop = threading.Event()

    def launch(self, name: str) -> bool:
        if name == self.during:
            self.stop.set()
        return super().launch(name)


@pytest.mark.parametrize("at_once", ["1", "2"])
def test_after_a_request_to_stop_nothing_starts(
    at_once: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, at_once)
    steps = Asked(DIAMOND, "load")
    with pytest.raises(RunStopped):
        go(steps, steps.stop)
    assert (steps.launched, steps.cleaned_up) == (["load"], 1)
    captured = capsys.readouterr()
    assert "Step `join` is not run: the run was asked to stop." in captured.err
    assert step_events(captured.out) == [
        ("load", "running", 1),
        ("load", "completed", 1),
        *((step, "not run", 1) for step in ("left", "right", "join")),
    ]


def test_a_request_to_stop_before_the_first_step() -> None:
    steps = Asked(DIAMOND, "none")
    steps.stop.set()
    with pytest.raises(RunStopped):
        go(steps, steps.stop)
    assert steps.launched == []


def test_a_request_to_stop_during_the_last_step_changes_nothing() -> None:
    steps = Asked(DIAMOND, "join")
    assert go(steps, steps.stop)


def test_a_request_to_stop_ends_retries_and_hides_no_failure(
    pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Asked(DIAMOND, "left", failures={"left": 9}, retries=(3, 0, 1))
    assert not go(steps, steps.stop)
    assert steps.launched == ["load", "left"]
    assert ("left", "failed", 1) in step_events(capsys.readouterr().out)


def test_retries_emit_events(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    go(Steps({"load": ()}, failures={"load": 1}, retries=(1, 0, 1)))
    shown = capsys.readouterr().out
    assert step_events(shown) == [
        ("load", "running", 1),
        ("load", "retrying", 1),
        ("load", "running", 2),
        ("load", "completed", 2),
    ]
    assert "ValueError: load went wrong" in shown


def test_failure_modes_are_those_of_zenml() -> None:
    from zenml.enums import ExecutionMode

    from modalrun.driver.scheduler import FailureMode

    assert {mode.value for mode in FailureMode} == {mode.value for mode in ExecutionMode}


# Several steps at a time.


class Together(Steps):
    """Steps of which two must meet, so that they only end when both of them run."""

    def __init__(self, *arguments: Any, meeting: set[str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.meeting = meeting
        self.barrier = threading.Barrier(2)
        self.threads: set[str] = set()

    def launch(self, name: str) -> bool:
        self.threads.add(threading.current_thread().name)
        if name in self.meeting:
            self.barrier.wait(20)
        return super().launch(name)


def test_independent_steps_run_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    steps = Together(DIAMOND, meeting={"left", "right"})
    assert go(steps)
    assert steps.launched[0] == "load"
    assert sorted(steps.launched[1:3]) == ["left", "right"]
    assert steps.launched[3:] == ["join"]
    assert steps.cleaned_up == 1
    assert threading.main_thread().name not in steps.threads


def test_a_failure_lets_a_parallel_step_finish(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    steps = Together(DIAMOND, meeting={"left", "right"}, failures={"left": 1})
    assert not go(steps)
    assert sorted(steps.launched) == ["left", "load", "right"]
    assert "Step `join` is not run: " in capsys.readouterr().err


def test_max_parallelism_limits_parallel_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Steps):
        running = most = 0
        lock = threading.Lock()

        def launch(self, name: str) -> bool:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            super().launch(name)
            with self.lock:
                self.running -= 1
            return True

    monkeypatch.setenv(MAX_PARALLELISM, "3")
    steps = Counting({str(i): () for i in range(50)})
    assert go(steps)
    assert len(steps.launched) == 50
    assert 1 <= steps.most <= 3


def test_each_parallel_step_has_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    state = contextvars.ContextVar("state", default="nobody")
    state.set("main")
    seen: list[str] = []

    class Contextual(Steps):
        def launch(self, name: str) -> bool:
            seen.append(state.get())
            state.set(name)
            return super().launch(name)

    monkeypatch.setenv(MAX_PARALLELISM, "2")
    assert go(Contextual(DIAMOND))
    assert seen == ["main"] * 4
    assert state.get() == "main"


def test_a_termination_of_parallel_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Steps):
        def launch(self, name: str) -> bool:
            super().launch(name)
            raise RunStopped

    monkeypatch.setenv(MAX_PARALLELISM, "2")
    steps = Ended({"a": (), "b": ("a",)}, retries=(3, 0, 1))
    with pytest.raises(RunStopped):
        go(steps)
    assert steps.launched == ["a"]


# Tracebacks.


def test_traceback_begins_in_the_users_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "their_step.py"
    path.write_text("def step():\n    raise ValueError('theirs')\n", encoding="utf-8")
    space: dict[str, object] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    try:
        space["step"]()  # type: ignore[operator]
    except ValueError as error:
        driver_runner.print_traceback(error)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.splitlines()[1].startswith(f'  File "{path}", line 2')
    assert "test_pipeline.py" not in shown
    assert shown.endswith("ValueError: theirs\n")


def test_traceback_without_the_users_code_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        raise KeyError("elsewhere")
    except KeyError as error:
        driver_runner.print_traceback(error)
    assert "test_pipeline.py" in capsys.readouterr().err
