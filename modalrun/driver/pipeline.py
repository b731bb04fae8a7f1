"""Run all steps of a static pipeline in one sandbox, in graph order: `pipeline` mode.

This process, the runner, runs no user code and does not connect to ZenML. It imports ZenML and
forks workers (`worker`), at most `max_parallelism`, each of which runs one step at a time. Whatever
user code does to its process ends one attempt at one step: the runner sees the worker's death, has
another worker record it, and goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import traceback
from collections.abc import Sequence
from typing import NoReturn

from modalrun.driver.graph.scheduler import OTHER_FAILED, Action, FailureMode, Scheduler, Skip
from modalrun.driver.processes import control, privileges, process
from modalrun.driver.processes.deadline import TERMINATE_GRACE_SECONDS, unwinding
from modalrun.driver.processes.privileges import without_source
from modalrun.driver.workers.worker import DELETED, StepEnd
from modalrun.driver.workers.worker_pool import WorkerPool
from modalrun.driver.workers.worker_process import WorkerDied, WorkerError
from modalrun.run import contract, failure
from modalrun.run.manifest import Graph
from modalrun.run.reporting import emit_step_event, prove_events, retry_text
from modalrun.util import garbage_collection
from modalrun.zenml_api import log_filter


def main() -> NoReturn:
    """Run the steps of the run that the environment names, and exit with their outcome."""
    process.buffer_lines()
    prove_events()
    privileges.hide_process()
    log_filter.hide()
    code = contract.EXIT_UNRECORDED
    try:
        # For the workers, which are forked from this process.
        with garbage_collection.paused(), without_source():
            from modalrun.zenml_api.execution import pipeline_steps, single_step  # noqa: F401
            from modalrun.zenml_api.records import updates, zenml_store  # noqa: F401

            single_step.import_ahead()
        code = asyncio.run(run())
    except BaseException:
        traceback.print_exc()
    process.leave(code)


async def run() -> int:
    """Run all steps, and settle the run's record; return the exit code."""
    with contextlib.closing(WorkerPool()) as pool:
        runner = Runner(pool)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runner.terminate)
        pool.private += control.watch(lambda: runner.stop(contract.STOP_CLAUSE))
        code = await runner.run()
        if code != contract.EXIT_COMPLETED:
            try:
                with pool.worker() as worker:
                    await worker.ask("finalize", *runner.end, runner.last_lines)
            except (WorkerDied, WorkerError):
                # The supervisor tries again in a new process.
                return contract.EXIT_UNRECORDED
        return code


class Runner:
    """Run the steps of a run in workers.

    Attributes:
        last_lines: What steps have printed last that were ended at the deadline.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._terminated = False
        self._limit = int(os.environ.get(contract.MAX_PARALLELISM, "1"))
        self._failed: dict[str, str] = {}
        self.last_lines: dict[str, list[str]] = {}
        # Set when nothing new may start; then why not, as a part of a sentence.
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        # Why running steps were ended, and why the whole run has failed: sentences.
        self._ended_early = ""
        self._error = ""
        self._stopped = False
        self._graph: Graph
        self._scheduler: Scheduler | None = None

    @property
    def end(self) -> tuple[str, bool]:
        """Why the run did not complete, and whether it was stopped; call it after the end."""
        stopped = self._stopped and not self._failed and not self._error
        if self._terminated:
            return process.termination_reason(), stopped
        if stopped:
            return contract.STOP_REASON, True
        reason = failure.of_steps(self._failed) if self._failed else "The run ended early."
        return self._error or reason, False

    def stop(self, reason: str) -> None:
        """Start nothing new, as requested for a reason (a part of a sentence)."""
        self._stopped = True
        self._start_nothing(reason)

    def terminate(self) -> None:
        """End the running steps, and then the run."""
        self._terminated = True
        grace = TERMINATE_GRACE_SECONDS / 2
        if process.supervisors_reason() is not None:
            grace = unwinding()
        self._start_nothing(process.termination_clause())
        self._end_running(process.termination_reason(), grace)

    async def run(self) -> int:
        """Run until every step is in a final state; return the exit code."""
        try:
            with self._pool.worker() as worker:
                answer = await worker.ask("graph")
        except (WorkerDied, WorkerError) as error:
            self._error = str(error)
        else:
            if isinstance(answer, StepEnd):
                self.stop("the run was over before it began")
            else:
                self._graph = answer
                await self._run_steps()
                if not self._terminated:
                    # As after a cleanup hook that raises, which ZenML logs alone.
                    for problem in await self._pool.clean_up():
                        self._pool.log(None, f"modalrun: {problem}")
        if self._terminated:
            return contract.EXIT_TERMINATED
        if self._failed or self._error:
            return contract.EXIT_FAILED
        completed = self._scheduler is not None and self._scheduler.succeeded
        return contract.EXIT_COMPLETED if completed else contract.EXIT_TERMINATED

    async def _run_steps(self) -> None:
        graph = self._graph
        self._scheduler = scheduler = Scheduler(
            graph.steps, mode=FailureMode(graph.failure_mode), max_parallelism=self._limit
        )
        scheduler.restore(graph.done)
        for step, state in graph.done.items():
            emit_step_event(step, state)
        if self._stopping.is_set():
            scheduler.stop(self._stop_reason)
        running = self._apply(scheduler.start())
        while running:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                if self._stopping.is_set():
                    running |= self._apply(scheduler.stop(self._stop_reason))
                actions = scheduler.ended(task.get_name(), succeeded=task.result())
                running |= self._apply(actions)

    def _apply(self, actions: list[Action]) -> set[asyncio.Task[bool]]:
        """Report the steps that will not run; start the others."""
        started = set()
        for action in actions:
            if isinstance(action, Skip):
                self._pool.log(None, action.reason)
                emit_step_event(action.step, "not run", reason=action.reason)
            else:
                started.add(asyncio.create_task(self._run_step(action.step), name=action.step))
        return started

    async def _run_step(self, name: str) -> bool:
        """Run one step with its retries; return whether it has succeeded."""
        retries, delay, backoff = self._graph.retries.get(name, (0, 0.0, 1.0))
        attempt = 1
        failed = None
        while True:
            end = await self._attempt(name, attempt, final=attempt > retries)
            if end.state == "not run":
                end = failed or end
            if end.state != "failed" or attempt > retries or self._stopping.is_set():
                break
            failed = end
            text = retry_text(name, end.reason, attempt, retries, delay)
            emit_step_event(name, "retrying", attempt=attempt, reason=text)
            self._pool.log(name, f"modalrun: {text}")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                end = StepEnd("stopped", f"Step `{name}` is not tried again: {self._stop_reason}.")
                break
            delay *= backoff
            attempt += 1
        emit_step_event(name, end.state, attempt=attempt, reason=end.reason)
        if end.state == "failed":
            self._failed[name] = end.reason or "Its log says why."
            reason = f"step `{name}` failed"
            if self._graph.failure_mode != FailureMode.CONTINUE_ON_FAILURE.value:
                self._start_nothing(reason)
            if self._graph.failure_mode == FailureMode.FAIL_FAST.value:
                self._end_running(f"It was ended early: {reason}.", TERMINATE_GRACE_SECONDS)
        return end.state == "completed"

    async def _attempt(self, name: str, attempt: int, *, final: bool) -> StepEnd:
        """Run one step once."""
        if self._ended_early:
            return StepEnd("stopped", self._ended_early)
        try:
            with self._pool.worker() as worker:
                end: StepEnd = await worker.ask(
                    "run",
                    name,
                    step=name,
                    begun=lambda: emit_step_event(name, "running", attempt=attempt),
                )
                if end.state == "running":
                    # The step may have spoiled the process, which could not record its end.
                    worker.retired = True
        except (WorkerDied, WorkerError) as error:
            problem = error
        else:
            return await self._judge(name, end, attempt, final=final)
        # Not in the handler: a worker forked there would have the error as context of its own.
        if isinstance(problem, WorkerDied) and problem.asked:
            if self._terminated:
                self.last_lines[name] = worker.last_lines()
            return await self._stopped_end(name)
        if worker.begun:
            return await self._failed_end(
                name, str(problem), attempt, final=final, lines=worker.last_lines()
            )
        if isinstance(problem, WorkerError) or not worker.used:
            self._error = f"The run failed before step `{name}`: {problem}"
            self._start_nothing("the run has failed")
            return StepEnd("not run", str(problem))
        # What an earlier step has left in it ended it.
        return await self._attempt(name, attempt, final=final)

    async def _judge(self, name: str, end: StepEnd, attempt: int, *, final: bool) -> StepEnd:
        """Act on an end that the worker has recorded, or could not record."""
        if end == DELETED:
            self.stop(contract.DELETED_CLAUSE)
            self._end_running(contract.DELETED_REASON, TERMINATE_GRACE_SECONDS)
        elif end.state == "stopped":
            # ZenML was asked to stop the run.
            self.stop(contract.STOP_CLAUSE)
            self._end_running("The run was stopped.", TERMINATE_GRACE_SECONDS)
        elif end.state == "not run":
            # ZenML has recorded a failure of a step whose end is yet to come here.
            self._start_nothing(OTHER_FAILED)
            what = "run" if attempt == 1 else "tried again"
            end = StepEnd("not run", f"Step `{name}` is not {what}: {self._stop_reason}.")
            self._pool.log(None, str(end.reason))
        elif end.state == "running":
            reason = end.reason or "The end of the step could not be recorded."
            end = await self._failed_end(name, reason, attempt, final=final)
        return end

    async def _failed_end(
        self, name: str, reason: str, attempt: int, *, final: bool, lines: Sequence[str] = ()
    ) -> StepEnd:
        """Have a failure recorded that its worker could not record."""
        self._pool.log(name, f"modalrun: {reason}")
        while True:
            end: StepEnd | None = None
            with contextlib.suppress(WorkerDied, WorkerError), self._pool.worker() as worker:
                # ZenML's record wins: it may have completed before.
                end = await worker.ask("fail", name, reason, attempt, final, lines)
            if end is not None:
                return await self._judge(name, end, attempt, final=final)
            # Else what an earlier step has left in it may have ended it.
            if not worker.used:
                # The end of the run settles its record.
                return StepEnd("failed", reason)

    async def _stopped_end(self, name: str) -> StepEnd:
        """Have it recorded that a running step was ended, unless the end of the run does so."""
        if self._terminated:
            return StepEnd(
                "failed" if process.supervisors_reason() else "stopped", self._ended_early
            )
        # Else the end of the run settles its record.
        with contextlib.suppress(WorkerDied, WorkerError), self._pool.worker() as worker:
            await worker.ask("stop", name, self._ended_early)
        self._pool.log(name, f"Step `{name}` stopped: {self._ended_early}")
        return StepEnd("stopped", self._ended_early)

    def _start_nothing(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason
        self._stopping.set()

    def _end_running(self, reason: str, grace: float) -> None:
        self._ended_early = self._ended_early or reason
        self._pool.end_busy(grace)


if __name__ == "__main__":
    main()
