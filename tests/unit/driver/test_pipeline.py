"""Run the steps of a pipeline in workers: order, failures, deaths, retries, stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from modalrun.driver.pipeline import Runner
from modalrun.driver.workers import worker
from modalrun.driver.workers.worker import StepEnd
from modalrun.driver.workers.worker_process import WorkerDied, WorkerError
from modalrun.errors import RunStopped
from modalrun.run import contract, events
from modalrun.run.contract import (
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_TERMINATED,
    MAX_PARALLELISM,
    RUN_ID,
    TERMINATED_REASON,
)
from modalrun.run.events import StepState
from modalrun.run.manifest import Graph

from .pool import Pool, Worker

DIAMOND = {"load": (), "left": ("load",), "right": ("load",), "join": ("left", "right")}
DIED = WorkerDied("The step's process ended with exit code 0.", asked=False)


def graph(
    steps: dict[str, tuple[str, ...]] = DIAMOND,
    *,
    mode: str = "stop_on_failure",
    retries: dict[str, tuple[int, float, float]] | None = None,
    done: dict[str, StepState] | None = None,
) -> Graph:
    return Graph(steps, retries or {}, done or {}, mode)


def failed(reason: str = "ValueError: no") -> StepEnd:
    return StepEnd("failed", reason)


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MAX_PARALLELISM, raising=False)


def go(pool: Pool, before: Callable[[Runner], None] | None = None) -> tuple[int, str, bool]:
    """Return the exit code, and reason and stop of the end."""

    async def run() -> tuple[int, str, bool]:
        runner = Runner(pool)  # type: ignore[arg-type]
        if before is not None:
            before(runner)
        code = await asyncio.wait_for(runner.run(), 20)
        return (code, *runner.end)

    return asyncio.run(run())


def step_events(text: str) -> list[tuple[str, str, int]]:
    """Return the step events on stdout: step, state, attempt."""
    found = [events.read(line) for line in text.split("\n")]
    return [(e.step, e.state, e.attempt) for e in found if isinstance(e, events.StepEvent)]


def test_all_steps_in_graph_order() -> None:
    pool = Pool(graph())
    assert go(pool)[0] == EXIT_COMPLETED
    assert pool.launched == ["load", "left", "right", "join"]
    assert pool.cleaned_up == 1


def test_done_steps_are_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Pool(graph(done={"load": "skipped", "left": "cached"}))
    assert go(pool)[0] == EXIT_COMPLETED
    assert pool.launched == ["right", "join"]
    assert step_events(capsys.readouterr().out)[:2] == [
        ("load", "skipped", 1),
        ("left", "cached", 1),
    ]


@pytest.mark.parametrize("mode", ["stop_on_failure", "fail_fast"])
def test_nothing_starts_after_a_failure(mode: str) -> None:
    pool = Pool(graph(mode=mode), left=[failed()])
    assert go(pool) == (EXIT_FAILED, "Step `left` failed: ValueError: no", False)
    assert pool.launched == ["load", "left"]
    assert pool.cleaned_up == 1
    assert pool.logged == [
        "-: Step `right` is not run: step `left` failed.",
        "-: Step `join` is not run: step `left` failed.",
    ]


def test_continuing_skips_only_dependents_of_the_failure() -> None:
    steps = {**DIAMOND, "after": ("join",), "other": ()}
    pool = Pool(graph(steps, mode="continue_on_failure"), left=[failed()])
    assert go(pool)[0] == EXIT_FAILED
    assert pool.launched == ["load", "left", "right", "other"]
    assert pool.logged == [
        "-: Step `join` is not run: `left` did not succeed.",
        "-: Step `after` is not run: `join` did not succeed.",
    ]


def test_retries(capsys: pytest.CaptureFixture[str]) -> None:
    retries = {"load": (3, 0.01, 2.0)}
    pool = Pool(graph({"load": ()}, retries=retries), load=[failed(), failed()])
    assert go(pool)[0] == EXIT_COMPLETED
    assert pool.launched == ["load"] * 3
    assert pool.logged == [
        "load: modalrun: Step `load` failed: ValueError: no; retry 1 of 3 in 0.01 s.",
        "load: modalrun: Step `load` failed: ValueError: no; retry 2 of 3 in 0.02 s.",
    ]
    assert step_events(capsys.readouterr().out) == [
        ("load", "running", 1),
        ("load", "retrying", 1),
        ("load", "running", 2),
        ("load", "retrying", 2),
        ("load", "running", 3),
        ("load", "completed", 3),
    ]


def test_retries_are_limited() -> None:
    pool = Pool(graph({"load": (), "next": ()}, retries={"load": (2, 0, 1)}), load=[failed()] * 9)
    assert go(pool)[0] == EXIT_FAILED
    assert pool.launched == ["load"] * 3


def test_a_worker_that_dies_is_a_failed_attempt() -> None:
    steps = {"load": (), "next": ()}
    pool = Pool(
        graph(steps, retries={"load": (1, 0, 1)}, mode="continue_on_failure"), load=[DIED, DIED]
    )
    assert go(pool) == (EXIT_FAILED, f"Step `load` failed: {DIED}", False)
    assert pool.launched == ["load", "load", "next"]
    assert pool.asked == [
        ("fail", "load", str(DIED), 1, False, ["last words"]),
        ("fail", "load", str(DIED), 2, True, ["last words"]),
    ]


def test_zenmls_record_of_a_success_wins_over_the_death(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(self: Worker, method: str, *arguments: Any, **more: Any) -> Any:
        found = await real(self, method, *arguments, **more)
        return StepEnd("completed") if method == "fail" else found

    real = Worker.ask
    monkeypatch.setattr(Worker, "ask", ask)
    pool = Pool(graph({"load": (), "next": ("load",)}), load=[DIED])
    assert go(pool)[0] == EXIT_COMPLETED


@pytest.mark.parametrize(("used", "tries"), [(True, 3), (False, 1)])
def test_a_failure_is_recorded_by_a_worker_that_is_not_spoiled(used: bool, tries: int) -> None:
    """Else the end of the run would record another reason; a fresh worker is not asked again."""
    pool = Pool(graph({"load": ()}), load=[DIED])
    pool.used, pool.spoiled = used, 2
    assert go(pool) == (EXIT_FAILED, f"Step `load` failed: {DIED}", False)
    assert pool.asked == [("fail", "load", str(DIED), 1, True, ["last words"])] * tries


@pytest.mark.parametrize("error", [WorkerError("HookError: no"), DIED])
def test_a_death_in_the_init_hook_fails_the_run(error: Exception) -> None:
    pool = Pool(graph(retries={"load": (2, 0, 1)}), load=[error])
    pool.begins = False
    assert go(pool) == (EXIT_FAILED, f"The run failed before step `load`: {error}", False)
    assert pool.launched == ["load"]


def test_a_death_in_the_cleanup_hook_is_only_logged() -> None:
    pool = Pool(graph({"load": ()}))
    pool.cleanup_problems = ["The cleanup hook's process ended with exit code 5."]
    assert go(pool)[0] == EXIT_COMPLETED
    assert pool.logged == ["-: modalrun: The cleanup hook's process ended with exit code 5."]


def test_a_worker_that_has_died_between_two_steps_is_replaced() -> None:
    pool = Pool(graph({"load": ()}), load=[DIED])
    pool.begins, pool.used = False, True
    assert go(pool)[0] == EXIT_COMPLETED
    assert pool.launched == ["load", "load"]
    assert pool.asked == []


@pytest.mark.parametrize("error", [WorkerError("OSError: no"), DIED])
def test_a_run_that_can_not_be_loaded(error: Exception) -> None:
    assert go(Pool(error)) == (EXIT_FAILED, str(error), False)


def test_a_run_that_was_stopped_before() -> None:
    pool = Pool(StepEnd("stopped"))
    assert go(pool) == (EXIT_TERMINATED, "The run was asked to stop.", True)
    assert pool.launched == []


# Stops.


@pytest.mark.parametrize("at_once", ["1", "2"])
def test_after_a_request_to_stop_nothing_starts(
    at_once: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, at_once)
    pool = Pool(graph())

    def stopping(runner: Runner) -> None:
        async def end() -> StepEnd:
            runner.stop(contract.STOP_CLAUSE)
            return StepEnd("completed")

        pool.ends["load"] = [end]

    assert go(pool, stopping) == (EXIT_TERMINATED, "The run was asked to stop.", True)
    assert (pool.launched, pool.cleaned_up) == (["load"], 1)
    assert "-: Step `join` is not run: the run was asked to stop." in pool.logged
    assert sorted(step_events(capsys.readouterr().out)) == sorted(
        [
            ("load", "running", 1),
            ("load", "completed", 1),
            *((step, "not run", 1) for step in ("left", "right", "join")),
        ]
    )


def test_a_request_to_stop_before_the_first_step() -> None:
    pool = Pool(graph())
    assert go(pool, lambda runner: runner.stop(contract.STOP_CLAUSE))[0] == EXIT_TERMINATED
    assert pool.launched == []


def test_a_request_to_stop_during_the_last_step_changes_nothing() -> None:
    pool = Pool(graph({"load": ()}))

    def stopping(runner: Runner) -> None:
        async def end() -> StepEnd:
            runner.stop(contract.STOP_CLAUSE)
            return StepEnd("completed")

        pool.ends["load"] = [end]

    assert go(pool, stopping)[0] == EXIT_COMPLETED


def test_a_request_to_stop_hides_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Pool(graph({"load": ()}, retries={"load": (3, 0, 1)}))

    def stopping(runner: Runner) -> None:
        async def end() -> StepEnd:
            runner.stop(contract.STOP_CLAUSE)
            return failed()

        pool.ends["load"] = [end]

    assert go(pool, stopping)[0] == EXIT_FAILED
    assert pool.launched == ["load"]
    assert ("load", "failed", 1) in step_events(capsys.readouterr().out)


def test_a_request_to_stop_ends_the_wait_for_a_retry(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Pool(graph({"load": ()}, retries={"load": (3, 3600, 1)}), load=[failed()])

    def stopping(runner: Runner) -> None:
        asyncio.get_running_loop().call_later(0.05, runner.stop, contract.STOP_CLAUSE)

    assert go(pool, stopping) == (EXIT_TERMINATED, "The run was asked to stop.", True)
    assert pool.launched == ["load"]
    assert ("load", "stopped", 1) in step_events(capsys.readouterr().out)


def test_a_stop_in_zenml_ends_the_other_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    pool = Pool(graph({"a": (), "b": (), "c": ()}))
    pool.ends = {"a": [StepEnd("stopped")], "b": [waiting(pool, "b")]}
    assert go(pool)[0] == EXIT_TERMINATED
    assert pool.launched == ["a", "b"]
    assert pool.asked == [("stop", "b", "The run was stopped.")]


def test_fail_fast_ends_the_running_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    pool = Pool(graph({"a": (), "b": (), "c": ("b",)}, mode="fail_fast"))
    pool.ends = {"a": [failed()], "b": [waiting(pool, "b")]}
    assert go(pool) == (EXIT_FAILED, "Step `a` failed: ValueError: no", False)
    reason = "It was ended early: step `a` failed."
    assert pool.asked == [("stop", "b", reason)]
    assert f"b: Step `b` stopped: {reason}" in pool.logged
    assert ("b", "stopped", 1) in step_events(capsys.readouterr().out)


def test_a_termination_is_no_failure_and_is_not_retried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool = Pool(graph(retries={"load": (3, 0, 1)}))
    pool.ends = {"load": [waiting(pool, "load")]}

    def terminating(runner: Runner) -> None:
        asyncio.get_running_loop().call_later(0.05, runner.terminate)

    assert go(pool, terminating) == (EXIT_TERMINATED, TERMINATED_REASON, False)
    assert (pool.launched, pool.cleaned_up) == (["load"], 0)
    # The end of the run settles its record.
    assert pool.asked == []
    assert ("load", "stopped", 1) in step_events(capsys.readouterr().out)


def waiting(pool: Pool, name: str) -> Callable[[], Awaitable[StepEnd]]:
    """A step that runs until its worker is ended."""

    def end() -> Awaitable[StepEnd]:
        pool.running[name] = asyncio.get_running_loop().create_future()
        return pool.running[name]

    return end


def test_failure_modes_are_those_of_zenml() -> None:
    from zenml.enums import ExecutionMode

    from modalrun.driver.graph.scheduler import FailureMode

    assert {mode.value for mode in FailureMode} == {mode.value for mode in ExecutionMode}


# Several steps at a time.


def test_independent_steps_run_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    pool = Pool(graph())
    arrived: list[str] = []

    async def meet() -> StepEnd:
        arrived.append("one")
        while len(arrived) < 2:
            await asyncio.sleep(0)
        return StepEnd("completed")

    pool.ends = {"left": [meet], "right": [meet]}
    assert go(pool)[0] == EXIT_COMPLETED
    assert pool.launched == ["load", "left", "right", "join"]


def test_a_failure_lets_a_parallel_step_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    pool = Pool(graph(), left=[failed()])
    assert go(pool)[0] == EXIT_FAILED
    assert pool.launched == ["load", "left", "right"]
    assert "-: Step `join` is not run: step `left` failed." in pool.logged


def test_a_step_that_begins_after_a_failure_that_only_zenml_knows_is_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MAX_PARALLELISM, "2")
    pool = Pool(graph({"a": (), "b": (), "c": ("b",), "d": ("c",)}, mode="fail_fast"))

    async def hook() -> StepEnd:
        while "c" not in pool.launched:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return failed()

    pool.ends = {"a": [hook], "c": [StepEnd("not run")]}
    assert go(pool) == (EXIT_FAILED, "Step `a` failed: ValueError: no", False)
    assert "-: Step `c` is not run: another step failed." in pool.logged
    assert "-: Step `d` is not run: another step failed." in pool.logged
    assert ("c", "not run", 1) in step_events(capsys.readouterr().out)


def test_a_retry_that_zenml_refuses_leaves_the_failure_before() -> None:
    pool = Pool(graph({"a": ()}, retries={"a": (3, 0, 1)}), a=[failed(), StepEnd("not run")])
    assert go(pool) == (EXIT_FAILED, "Step `a` failed: ValueError: no", False)
    assert pool.launched == ["a", "a"]


@pytest.mark.parametrize("failed_before", [True, False])
def test_a_run_that_has_failed_before_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, failed_before: bool
) -> None:
    monkeypatch.setenv(RUN_ID, "some-run")
    connection: Any = None
    first = worker.Worker(connection)
    steps: Any = SimpleNamespace(failed_before=failed_before, graph=graph())
    first._loaded = steps
    if failed_before:
        with pytest.raises(RunStopped):
            first.graph()
    else:
        assert first.graph() == graph()
