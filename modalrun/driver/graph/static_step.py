"""Run one step of a static pipeline to its end: attempt it, judge each attempt, retry."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from modalrun.driver.graph.capacity_waits import CapacityWaits
from modalrun.driver.graph.recorder import AsyncRecorder
from modalrun.driver.graph.scheduler import OTHER_FAILED
from modalrun.driver.graph.step_attempts import StepAttempts, unwind
from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
from modalrun.driver.processes.deadline import unwinding
from modalrun.driver.processes.process import reason_of, supervisors_reason
from modalrun.driver.processes.tasks import Tasks
from modalrun.errors import AuthenticationError, ModalrunError, NoRunError
from modalrun.run import sandbox_exit
from modalrun.run.contract import DELETED_CLAUSE, DELETED_REASON, STOP_CLAUSE
from modalrun.run.events import StepState
from modalrun.run.finished_step import end_event
from modalrun.run.manifest import RunManifest
from modalrun.run.metadata import StepMetadata
from modalrun.run.records import StepRecord
from modalrun.run.reporting import log_line, retry_text, write_event
from modalrun.run.run_plan import PlannedStep
from modalrun.run.sandbox_exit import ExitKind, SandboxExit

if TYPE_CHECKING:
    from modalrun.driver.graph.lease import Lease
    from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox
    from modalrun.zenml_api.execution.recorder import RunRecorder

T = TypeVar("T")


@dataclass
class EarlyEnd:
    """Hold whether, why and how a run ends before all of its steps have run.

    Attributes:
        reason: Why nothing new starts, as a part of a sentence; None while steps start.
        requested: Whether somebody asked for it; else a step has failed.
        gave_up: Whether running steps are terminated because the whole run must end now.
        timed_out: Whether the run's timeout is the cause: running steps have failed then.
        termination: Why running steps are terminated, a sentence; empty while they may finish.
        lines: What steps have printed last that the run's timeout has ended.
        event: Set when nothing new may start: no step, no retry, no creation that awaits capacity.
        refusing: Set then too, and when ZenML takes no new records because a step has failed.
    """

    reason: str | None = None
    requested: bool = False
    gave_up: bool = False
    timed_out: bool = False
    termination: str = ""
    lines: dict[str, list[str]] = field(default_factory=dict)
    event: asyncio.Event = field(default_factory=asyncio.Event)
    refusing: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class RunContext:
    """Hold what all steps of a run share; `stop` stops the run gracefully, for a reason.

    The end of the run waits for the tasks in the `background`.
    """

    manifest: RunManifest
    sandboxes: WarmSandboxes
    recorder: AsyncRecorder
    waits: CapacityWaits
    background: Tasks
    early_end: EarlyEnd
    stop: Callable[[str], None]


class StaticStep:
    """Run one step, with as many sandboxes as that takes.

    Attributes:
        attempts: Its sandboxes.
        recorded: ZenML's record that an earlier driver left; None if there is none.
        created: Set when the first sandbox was created, or none will be.
        failed: Why the step has failed for good; None if it has not.
    """

    def __init__(self, step: PlannedStep, context: RunContext) -> None:
        # Every step of a `per_step` run has one.
        assert step.sandbox is not None
        self.attempts = StepAttempts(context.manifest, step.name, step.sandbox)
        self.recorded: StepRecord | None = None
        self.created = asyncio.Event()
        self.failed: str | None = None
        self._step = step
        self._context = context

    @property
    def failed_before(self) -> bool:
        """Whether it had failed for good before this driver took over."""
        recorded = self.recorded is not None and self.recorded.status == "failed"
        return recorded and self.attempts.sandbox is None

    async def run(self) -> bool:
        """Attempt the step until it may not be retried; return whether it succeeded."""
        try:
            return await self._run()
        except NoRunError:
            self._context.stop(DELETED_CLAUSE)
            self.attempts.emit("stopped", reason=DELETED_REASON)
            return False
        except Exception as error:
            # Neither a bug of modalrun nor a full disk may hang the run or pass for a success.
            self.terminate()
            self._fail(reason_of(error))
            return False
        finally:
            self.created.set()

    def terminate(self) -> None:
        """Terminate the running sandbox in the background, if there is one.

        At the run's timeout its code may unwind before: the step records where it was.
        """
        if self.attempts.sandbox is not None:
            self._context.background.start(self._end(self.attempts.sandbox))

    async def _end(self, sandbox: StepSandbox | Lease) -> None:
        if self._context.early_end.timed_out and (reason := supervisors_reason()):
            await unwind(sandbox, reason)
        await sandbox.terminate()

    async def _run(self) -> bool:
        attempts, context = self.attempts, self._context
        if self.recorded is not None and self.failed_before:
            self.failed = self.recorded.reason or "It failed before."
            write_event(end_event(self.recorded, time.time()))
            return False
        adopted = attempts.sandbox is not None
        new = not adopted and self.recorded is None
        # ZenML's cache was asked about the first steps when the run was submitted.
        ask_cache = new and self._step.caches and self._step.upstream
        if ask_cache and await self._is_cached():
            attempts.emit("cached")
            return True
        if attempts.record and not (adopted or self._given_up.is_set()):
            attempts.emit_loss()
        delay = self._step.delay
        while adopted or not self._given_up.is_set():
            end = await self._attempt(adopted=adopted)
            adopted = False
            if end is None:
                break
            failures = attempts.failures
            succeeded = await self._judge(end, delay)
            if succeeded is not None:
                return succeeded
            if attempts.failures > failures:
                await self._pause(delay)
                delay *= self._step.backoff
        attempts.emit("stopped", reason=context.early_end.reason or OTHER_FAILED)
        return False

    @property
    def _given_up(self) -> asyncio.Event:
        """What ends the attempts: a lost sandbox needs no new record."""
        early_end = self._context.early_end
        return early_end.event if self.attempts.record else early_end.refusing

    async def _attempt(self, *, adopted: bool) -> SandboxExit | None:
        """Run one sandbox to its end; return None if nothing new may start."""
        attempts, context = self.attempts, self._context
        began = None
        sandbox = attempts.sandbox
        if sandbox is None:
            created = await attempts.create(
                context.sandboxes, self._given_up, on_wait=context.waits.tell
            )
            if created is None or isinstance(created, SandboxExit):
                return created
            sandbox = created
        self.created.set()
        if adopted and self.recorded is not None and is_running(self.recorded):
            began = self.recorded.began
        attempts.begin(sandbox, began=began)
        # It may have been the last step that idle sandboxes have waited for.
        context.sandboxes.look()
        if context.early_end.termination:
            # It was being created when all running sandboxes were terminated.
            await sandbox.terminate()
        end = await attempts.wait()
        if context.early_end.termination:
            end = sandbox_exit.ended_by_driver(end, context.early_end.termination)
        return end

    async def _judge(self, end: SandboxExit, delay: float) -> bool | None:
        """Return whether the step has succeeded; None to attempt it again, in `delay` seconds."""
        attempts, early_end = self.attempts, self._context.early_end
        record = None
        proves = end.kind is ExitKind.COMPLETED and not attempts.keeps_entrypoint
        if not proves:
            record = await self._call(lambda recorder: recorder.step_state(attempts.name))
        # ZenML's record wins: the outputs are stored, whatever happened to the sandbox.
        if proves or (record is not None and record.successful):
            return self._ended("completed", end)
        running = record is not None and is_running(record)
        failed = has_failed(record, attempts.failures)
        # A failure that has a record which still runs is one of the step's process.
        begun = failed or (running and end.kind is ExitKind.FAILED)
        if attempts.keeps_entrypoint and not begun and sandbox_exit.is_of_entrypoint(end):
            end = sandbox_exit.of_entrypoint(end)
        if failed and record is not None and record.failure:
            end = replace(end, reason=str(record.failure))
        end = await self._with_usage(record, end)
        if record is not None and (running or failed) and attempts.sandbox_id:
            # Else the record is that of an earlier attempt.
            self._record_exit(record, attempts.sandbox_id, end)
        stopped = record is not None and record.status in {"stopping", "stopped"}
        if end.is_infrastructure and not stopped and not early_end.termination:
            # The stop itself may have ended the sandbox, or kept the step from beginning.
            stopped = await self._call(lambda recorder: recorder.stop_requested())
        if stopped and not early_end.termination:
            # The step has noticed the stop before the driver.
            self._context.stop(STOP_CLAUSE)
        if early_end.termination or stopped:
            return await self._ended_early(end, record, stopped=stopped)
        if not (running or failed) and await self._call(lambda recorder: recorder.starts_nothing()):
            return self._not_begun(end, record)
        infrastructure = end.is_infrastructure and not failed
        if not early_end.event.is_set() and (
            retrying := attempts.restart(end) if infrastructure else self._retry(end, delay)
        ):
            await self._attempt_again(end, record, retrying, infrastructure=infrastructure)
            return None
        if early_end.requested and infrastructure:
            # Without the stop it would have been restarted. The end of the run settles its record.
            return self._ended("stopped", end)
        told = end.killed or end.kind is ExitKind.UNPREPARED
        lines = await attempts.last_lines() if told else []
        await self._record_failure(end, record, final=True, lines=lines)
        self.failed = end.reason
        return self._ended("failed", end)

    async def _attempt_again(
        self, end: SandboxExit, record: StepRecord | None, reason: str, *, infrastructure: bool
    ) -> None:
        """Choose the record of the next sandbox, and report why there is one."""
        running = record is not None and is_running(record)
        if infrastructure:
            # ZenML counts records as attempts: a new one would use up a retry of the user's.
            self.attempts.record = record.id if record is not None and running else None
            self.attempts.emit_end("retrying", end, reason)
            return
        if running and not end.is_infrastructure:
            # The step's process could not record it; ZenML sets the record to "retrying".
            await self._record_failure(end, record, final=False)
        self.attempts.emit_end("retrying", end, reason)
        self.attempts.fail()

    async def _ended_early(
        self, end: SandboxExit, record: StepRecord | None, *, stopped: bool
    ) -> bool:
        """Report a step that the early end of the run has ended."""
        attempts, early_end = self.attempts, self._context.early_end
        if early_end.timed_out and not stopped:
            self._ended("failed", end)
            if record is None or not record.finished:
                # The end of the run records it, and needs time as well.
                early_end.lines[attempts.name] = []
                with contextlib.suppress(asyncio.TimeoutError):
                    lines = await asyncio.wait_for(attempts.last_lines(), unwinding() / 2)
                    early_end.lines[attempts.name] = lines
            return False
        if record is not None and record.status == "failed":
            # By itself, just before.
            self.failed = end.reason
            return self._ended("failed", end)
        if not early_end.gave_up and record is not None and is_running(record):
            reason = early_end.termination or end.reason
            await self._call(lambda recorder: recorder.stop_step(attempts.name, reason))
        return self._ended("stopped", end)

    def _not_begun(self, end: SandboxExit, record: StepRecord | None) -> bool:
        """Report an attempt that ZenML has not let begin: another step has failed just before."""
        if record is not None:
            # The attempt before has failed.
            self.failed = str(record.failure or end.reason)
            return self._ended("failed", replace(end, reason=self.failed))
        reason = f"Step `{self.attempts.name}` is not run: {OTHER_FAILED}."
        log_line(reason)
        self.attempts.emit("not run", reason=reason)
        return False

    def _retry(self, end: SandboxExit, delay: float) -> str | None:
        """Return a sentence that announces a retry; None if there is none."""
        attempts, retries = self.attempts, self._step.retries
        refused = end.kind is ExitKind.REFUSED or self._context.early_end.refusing.is_set()
        if refused or attempts.failures >= retries:
            return None
        return retry_text(attempts.name, end.reason, attempts.failures + 1, retries, delay)

    async def _is_cached(self) -> bool:
        try:
            return await self._call(lambda recorder: recorder.cached(self.attempts.name))
        except AuthenticationError:
            # ZenML also refuses the records of a run that is stopping, or has failed.
            if await self._call(lambda recorder: recorder.stop_requested()):
                self._context.stop(STOP_CLAUSE)
            elif not await self._call(lambda recorder: recorder.starts_nothing()):
                raise
            return False
        except ModalrunError:
            raise
        except Exception as error:
            # A step that can't be looked up is run.
            text = f"Step `{self.attempts.name}` was not found in the cache"
            log_line(f"{text}: {type(error).__name__}: {error}")
            return False

    async def _with_usage(self, record: StepRecord | None, end: SandboxExit) -> SandboxExit:
        """Store what a step has used whose sandbox was killed; return the end with the peak."""
        if record is None or not (end.killed and is_running(record)):
            return end
        step_run = record.id
        if self._context.early_end.termination or not (usage := await self.attempts.used(step_run)):
            return end
        self._context.background.start(
            self._call(lambda recorder: recorder.record_metadata(step_run, usage))
        )
        return end.with_peak(usage.peak_memory)

    def _record_exit(self, record: StepRecord, sandbox: str, end: SandboxExit) -> None:
        """Store with the step's record how its sandbox ended, in the background.

        What the sandbox has asked for is stored too, unless the step's process has done that.
        """
        attempts = self.attempts
        asked = {"gpu": attempts.gpu, **attempts.asked} if record.metadata is None else {}
        metadata = StepMetadata(
            sandbox_id=sandbox,
            exit_code=end.exit_code,
            exit_reason=end.reason,
            infrastructure_retries=attempts.restarts or None,
            **asked,
        ).over(record.metadata)
        self._context.background.start(
            self._call(lambda recorder: recorder.record_metadata(record.id, metadata))
        )

    async def _record_failure(
        self,
        end: SandboxExit,
        record: StepRecord | None,
        *,
        final: bool,
        lines: Sequence[str] = (),
    ) -> None:
        name, sandbox = self.attempts.name, self.attempts.sandbox_id
        attempt = self.attempts.failures + 1
        last = await self._call(
            lambda recorder: recorder.fail_step(
                name, end.reason, attempt=attempt, final=final, lines=lines
            )
        )
        if last is not None and last.id != (record and record.id) and sandbox:
            self._record_exit(last, sandbox, end)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._context.early_end.refusing.wait(), seconds)

    async def _call(self, question: Callable[[RunRecorder], T]) -> T:
        return await self._context.recorder.call(question)

    def _fail(self, reason: str) -> None:
        self.failed = reason
        self.attempts.emit("failed", reason=reason)

    def _ended(self, state: StepState, end: SandboxExit) -> bool:
        """Report the end of the last attempt; return whether the step succeeded."""
        self.attempts.emit_end(state, end)
        if state != "completed":
            log_line(f"Step `{self.attempts.name}` {state}: {end.reason}")
        return state == "completed"


def has_failed(record: StepRecord | None, failures: int) -> bool:
    """Return whether the last record is of another failure than those known before."""
    if record is None or is_running(record):
        return False
    return record.status != "retrying" or record.attempt > failures


def is_running(record: StepRecord) -> bool:
    """Return whether a record has no end yet. A "retrying" one has: its attempt has failed."""
    return not record.finished and record.status not in {"retrying", "stopping"}
