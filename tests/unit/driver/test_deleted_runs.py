"""End a run whose record was deleted in ZenML: say nothing of errors, and leave nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from modalrun.driver import finalize, per_step
from modalrun.driver.graph.static_step import EarlyEnd
from modalrun.driver.pipeline import Runner
from modalrun.driver.workers import worker
from modalrun.driver.workers.worker import DELETED
from modalrun.driver.workers.worker_process import WorkerDied
from modalrun.errors import NoRunError
from modalrun.run import contract
from modalrun.run.manifest import Graph
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.zenml_api.records import run_access, updates

from .coordinator_bench import Bench, play
from .pool import Pool

GONE = NoRunError("ZenML has no run some-run.")


def gone(*_: object, **__: object) -> NoReturn:
    raise GONE


@pytest.fixture(autouse=True)
def _run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(contract.RUN_ID, "some-run")
    monkeypatch.delenv(contract.STEP, raising=False)


@pytest.mark.parametrize("crashes", [False, True])
def test_no_other_step_starts_in_pipeline_mode(*, crashes: bool) -> None:
    pool = Pool(
        Graph({"a": (), "b": ("a",), "c": ()}, {}, {}, "continue_on_failure"),
        a=[WorkerDied("It died.", asked=False) if crashes else DELETED],
    )
    pool.recorded = DELETED

    code = asyncio.run(Runner(pool).run())  # type: ignore[arg-type]

    assert (code, pool.launched) == (contract.EXIT_TERMINATED, ["a"])
    assert [line for line in pool.logged if "not run" in line] == [
        f"-: Step `{name}` is not run: the run's record was deleted in ZenML." for name in "bc"
    ]


@pytest.mark.parametrize("deleted", [False, True])
def test_a_worker_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, deleted: bool
) -> None:
    answers: list[worker.Answer] = []
    requests = iter([b'{"method": "graph"}'])

    class Connection:
        def receive(self) -> bytes:
            if (request := next(requests, None)) is None:
                raise EOFError
            return request

        def send(self, answer: worker.Answer) -> None:
            answers.append(answer)

    def left(code: int) -> NoReturn:
        raise SystemExit(code)

    def broken(*_: object) -> NoReturn:
        raise KeyError("Unable to get step run")

    monkeypatch.setattr(worker, "leave", left)
    monkeypatch.setattr(worker.Worker, "answer", broken)
    monkeypatch.setattr(run_access, "get_run", gone if deleted else lambda *_, **__: None)
    connection: Any = Connection()
    with pytest.raises(SystemExit):
        worker.main(connection)
    (answer,) = answers
    assert answer.value == (DELETED if deleted else None)
    assert ("Traceback" in capsys.readouterr().err) is not deleted


def test_no_other_step_starts_in_per_step_mode(capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        bench = Bench({"a": [], "b": ["a"]})
        bench.records.recorder.stop_requested = gone  # type: ignore[method-assign]
        run = bench.begin()
        box = await bench.boxes.wait("sb-a-1")
        box.end(SandboxExit(ExitKind.TERMINATED, contract.EXIT_TERMINATED, "It ended."))
        await run
        assert [spec.env[contract.STEP] for spec in bench.boxes.requested] == ["a"]

    play(scene)
    said = capsys.readouterr().err
    assert "Step `b` is not run: the run's record was deleted in ZenML." in said
    assert "Traceback" not in said


def test_the_driver_notices_it_while_steps_run_and_leaves_nothing_to_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(per_step, "STOP_CHECK_SECONDS", 0.0)
    reasons: list[str] = []

    async def first_created(_: float) -> None:
        """At once."""

    async def call(question: Any) -> Any:
        answers = {"withdrawn": lambda: False, "set_running": lambda: None}
        return question(SimpleNamespace(**answers, stop_requested=gone, finalize=gone))

    coordinator: Any = SimpleNamespace(
        first_created=first_created,
        stop=reasons.append,
        early_end=EarlyEnd(reason="it was deleted", requested=True),
        failed={},
        succeeded=False,
    )
    recorder: Any = SimpleNamespace(call=call)

    asyncio.run(per_step._watch_for_stop(coordinator, recorder))

    assert reasons == [contract.DELETED_CLAUSE]
    # The supervisor starts no other driver after this one.
    assert asyncio.run(per_step._settle(coordinator, recorder)) == contract.EXIT_TERMINATED


def test_no_advice_is_given_when_a_process_has_died(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "modalrun.zenml_api.process.zenml_server", lambda folder: contextlib.nullcontext(True)
    )
    monkeypatch.setenv(contract.ENDED, "12.5")
    monkeypatch.setattr(updates, "finalize_run", gone)
    monkeypatch.setattr(sys, "argv", ["finalize", "It died."])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    finalize.main()
    said = capsys.readouterr().err
    assert said == "The end is not recorded: the run's record was deleted in ZenML.\n"
