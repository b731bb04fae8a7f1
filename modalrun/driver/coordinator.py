"""One walk through the graph of a run: which sandbox is wanted when, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modalrun.driver.ahead import Ahead
from modalrun.driver.recorder import Records
from modalrun.driver.sandbox_request import build_request
from modalrun.driver.scheduler import Action, FailureMode, Scheduler, Skip
from modalrun.driver.takeover import Takeover, told_again
from modalrun.errors import ModalrunError
from modalrun.run import events, sandbox_exit
from modalrun.run.events import StepEvent, StepState
from modalrun.run.manifest import RunManifest, StepOrder
from modalrun.run.metadata import StepMetadata
from modalrun.run.records import StepRecord
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.tags import MAX_TAG, fit

if TYPE_CHECKING:
    from modalrun.modal_api.step_sandboxes import SandboxRequest, StepSandbox, StepSandboxes
    from modalrun.zenml_api.execution.recorder import RunRecorder

STOP_REASON = "ZenML was asked to stop the run"


@dataclass
class _Tries:
    """How often a step was tried.

    Attributes:
        sandboxes: Sandboxes so far.
        failures: Failures of the user's so far.
        infrastructure: Ends so far that were nobody's fault here.
        record: The id of the step's record in ZenML that the next sandbox goes on with.
    """

    sandboxes: int = 0
    failures: int = 0
    infrastructure: int = 0
    record: str | None = None


class Coordinator:
    """Starts each step when its turn comes, and sees it through to its end.

    Attributes:
        fleet: The sandboxes.
        gave_up: Whether the steps were ended before their time.
    """

    def __init__(
        self, order: RunManifest, fleet: StepSandboxes, records: Records, say: Callable[[str], None]
    ) -> None:
        self.fleet = fleet
        self.gave_up = False
        self._order = order
        self._records = records
        self._say = say
        self._steps = {step.name: step for step in order.steps}
        self._tries = {step.name: _Tries() for step in order.steps}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._members: dict[str, StepSandbox] = {}
        self._last: dict[str, str | None] = dict.fromkeys(self._steps)
        self._states: Mapping[str, StepRecord] = {}
        self._failed: list[str] = []
        # Where Modal doesn't tell us our sandbox, it doesn't tell the steps theirs.
        self._ids_untold = not os.environ.get("MODAL_SANDBOX_ID")
        self._reason: str | None = None
        self._asked_to_stop = False
        self._ending = False
        # Why the steps that run are ended, a sentence.
        self._why_ending = ""
        self._timed_out = False
        # Tasks that nobody waits for; asyncio itself would lose them.
        self._background: set[asyncio.Task[Any]] = set()
        # Set when nothing new may start: a retry, or a creation that Modal has no room for.
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        # The steps whose sandboxes are being created, and whether there was a time without any.
        self._creating: set[str] = set()
        self._created = asyncio.Event()
        self._scheduler: Scheduler
        self._ahead = Ahead(order, create=self._create_early, tell=self._tell, beside=self._beside)

    @property
    def succeeded(self) -> bool:
        """Whether every step has succeeded."""
        return self._scheduler.succeeded

    @property
    def failed(self) -> list[str]:
        """The steps that failed, the first one first."""
        return self._failed

    @property
    def asked_to_stop(self) -> str | None:
        """Why the run ends early, where somebody wanted it to; a part of a sentence."""
        return self._reason if self._asked_to_stop else None

    async def run(self, taken: Takeover | None = None) -> None:
        """Walk until every step is in a final state."""
        done = {step.name for step in self._order.steps if step.done}
        for step in sorted(done):
            self._tell(step, "cached")
        if taken is not None:
            self._states = taken.states
            for event in told_again(taken.states, self._steps.keys() - done, time.time()):
                self._write(event)
            done |= {name for name, state in taken.states.items() if state.successful}
            self._remember(taken, done)
        failed = [
            name
            for name, state in self._states.items()
            if state.status == "failed" and name in self._steps and name not in self._members
        ]
        self._scheduler = Scheduler(
            {step.name: step.upstream for step in self._order.steps},
            mode=FailureMode(self._order.failure_mode),
            max_parallelism=self._order.max_parallelism,
            done=done,
            running={*self._members, *failed},
        )
        for name in (*self._members, *failed):
            self._start(name)
        if self._reason is not None:
            self._act(self._scheduler.stop(self._reason))
        if failed:
            # First: nothing may start that their failure forbids.
            await asyncio.gather(*(self._tasks[name] for name in failed))
        self._act(self._scheduler.start())
        await self._finished.wait()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def first_created(self, limit: float) -> None:
        """Wait until the first sandboxes are created, `limit` seconds at most."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._created.wait(), limit)

    @property
    def looks_ahead(self) -> bool:
        """Whether sandboxes may be created before their step's turn."""
        return self._ahead.wanted

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Be told how long steps take; sandboxes may be created early from now on."""
        self._ahead.foresight.expected = seconds
        self._look_ahead()

    def stop(self, reason: str) -> None:
        """Somebody wants the run to end: start nothing any more, and let what runs finish."""
        self._asked_to_stop = True
        self._start_nothing(reason)

    def give_up(self, reason: str, *, timed_out: bool = False) -> None:
        """Somebody wants the run to end at once: end what runs.

        Args:
            reason: A part of a sentence.
            timed_out: It is the run's timeout that wants it: what runs has failed then.
        """
        self.gave_up = True
        # A run that is being stopped ends as stopped, however long that takes.
        self._timed_out = timed_out and not self._asked_to_stop
        self.stop(reason)
        self._end_running(reason)

    def _start_nothing(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            self._say(f"Nothing more is started: {reason}.")
        self._stopping.set()
        self._ahead.discard_all()
        # Before the walk has begun there is nothing to tell the scheduler yet.
        if hasattr(self, "_scheduler"):
            self._act(self._scheduler.stop(reason))

    def _end_running(self, reason: str) -> None:
        self._ending = True
        self._why_ending = self._why_ending or f"It was ended early: {reason}."
        for member in list(self._members.values()):
            self._beside(member.terminate())

    def _beside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that nothing waits for but the end of the walk."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _remember(self, taken: Takeover, done: set[str]) -> None:
        """Go on where the earlier driver was: attempts, records, running sandboxes."""
        by_tag = {fit(name, MAX_TAG): name for name in self._steps}
        for member in sorted(taken.members, key=lambda member: member.attempt):
            name = by_tag.get(member.step)
            if name is None or name in done:
                continue
            self._tries[name].sandboxes = member.attempt
            if (earlier := self._members.pop(name, None)) is not None:
                # It was given up when the later one was created.
                self._beside(earlier.terminate())
            if member.early and name not in taken.states:
                # Whether it was told to go is not known; it has not begun its step.
                self._beside(member.terminate())
            else:
                self._members[name] = member
        for name, state in taken.states.items():
            if name in self._tries:
                tries = self._tries[name]
                again = (
                    state.metadata.infrastructure_retries if state.metadata is not None else None
                )
                # A try for infrastructure has a sandbox, and so a name, of its own.
                tries.sandboxes = max(tries.sandboxes, state.attempt + (again or 0))
                # Of "retrying" the last attempt has failed as well.
                tries.failures = state.attempt - (0 if state.status == "retrying" else 1)
                tries.record = state.id if _is_running(state) else None

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Skip):
                self._say(action.reason)
                self._ahead.discard(action.step)
                self._tell(action.step, "not run", reason=action.reason)
            else:
                self._start(action.step)
        self._look_ahead()
        if self._scheduler.finished:
            self._finished.set()

    def _look_ahead(self) -> None:
        if not self._stopping.is_set() and hasattr(self, "_scheduler"):
            self._ahead.look(self._scheduler.states)

    def _start(self, name: str) -> None:
        self._tasks[name] = asyncio.create_task(self._see_through(self._steps[name]))

    async def _see_through(self, step: StepOrder) -> None:
        """Run one step to its end, whatever happens."""
        try:
            succeeded = await self._run(step)
        except Exception as error:
            # A fault of ours must neither hang the run nor pass for a success.
            self._say("".join(traceback.format_exception(error)).rstrip())
            if (member := self._members.pop(step.name, None)) is not None:
                # Nobody would wait for its end any more.
                self._beside(member.terminate())
            self._fail(step, f"a fault of modalrun's own: {error}")
            succeeded = False
        del self._tasks[step.name]
        if step.name in self._failed and self._order.failure_mode == FailureMode.FAIL_FAST.value:
            reason = f"step `{step.name}` failed"
            self._start_nothing(reason)
            self._end_running(reason)
        self._act(self._scheduler.ended(step.name, succeeded=succeeded))

    async def _run(self, step: StepOrder) -> bool:
        """Try one step until it has succeeded or may not be tried again."""
        tries = self._tries[step.name]
        member = self._members.get(step.name)
        state = self._states.get(step.name)
        if member is None and state is not None and state.status == "failed":
            # It had failed for good before this driver took over.
            self._fail(step, "It failed before.", attempt=tries.sandboxes)
            return False
        unknown = member is None and state is None
        if unknown and step.look_up and await self._cached(step.name):
            self._ahead.discard(step.name)
            self._tell(step.name, "cached")
            return True
        delay = step.delay
        while not self._stopping.is_set() or member is not None:
            end = await self._try(step, tries, member)
            member = None
            if end is None:
                break
            verdict = await self._judge(step, tries, end, self._last[step.name])
            if verdict is not None:
                return verdict
            if not end.is_infrastructure:
                await self._pause(delay)
                delay *= step.backoff
        self._tell(step.name, "stopped", reason=self._reason)
        return False

    async def _try(
        self, step: StepOrder, tries: _Tries, member: StepSandbox | None
    ) -> SandboxExit | None:
        """One sandbox, from its creation to its end; None where it was not wanted any more."""
        from modalrun.modal_api.step_sandboxes import GivenUp, Refused

        waited, adopted = None, member is not None
        if member is None and (early := await self._ahead.take(step.name)) is not None:
            member, waited = early
        if member is None:
            tries.sandboxes += 1
            self._tell(step.name, "starting", attempt=tries.sandboxes)
            self._creating.add(step.name)
            try:
                member = await self.fleet.create(
                    self._wanted(step, tries),
                    self._stopping,
                    # What waits must not stand in the way of what could run.
                    no_room=self._ahead.discard_all,
                )
            except GivenUp:
                return None
            except Refused as error:
                return sandbox_exit.refused(f"Modal refuses the sandbox: {error}")
            finally:
                self._creating.discard(step.name)
                if not self._creating:
                    self._created.set()
        self._members[step.name] = member
        self._last[step.name] = member.id
        state = self._states.get(step.name)
        began = time.time()
        self._ahead.foresight.began(step.name, began, early=waited is not None)
        sandbox = self._order.sandboxes[step.sandbox]
        self._tell(
            step.name,
            "running",
            attempt=tries.sandboxes,
            sandbox=member.id,
            # Of a sandbox that another driver created only the first choice is known.
            gpu=member.gpu or next(iter(sandbox.gpus), None),
            cpu=sandbox.cpu,
            memory=sandbox.memory,
            wasted=waited,
            began=state.began if adopted and state and _is_running(state) else None,
        )
        if self._ending:
            # It was being created when all that runs was ended.
            await member.terminate()
        self._look_ahead()
        end = await member.ended()
        del self._members[step.name]
        if self._ending:
            end = sandbox_exit.ended_by_driver(end, self._why_ending)
        if self._ahead.wanted and waited is None and end.kind is ExitKind.COMPLETED:
            self._beside(self._note_startup(step.name, began))
        return end

    async def _create_early(self, step: StepOrder, given_up: asyncio.Event) -> StepSandbox:
        """Create a step's sandbox before its turn."""
        tries = self._tries[step.name]
        tries.sandboxes += 1
        # One that Modal has no room for now is asked for again when its turn comes.
        asked = self._wanted(step, tries, early=True)
        return await self.fleet.create(asked, given_up, no_room=given_up.set)

    async def _note_startup(self, step: str, began: float) -> None:
        state = await self._records.ask(lambda recorder: recorder.step_state(step))
        if state is not None and state.began is not None and state.attempt == 1:
            self._ahead.foresight.saw_startup(state.began - began)

    async def _judge(
        self, step: StepOrder, tries: _Tries, end: SandboxExit, sandbox: str | None
    ) -> bool | None:
        """Whether a step has succeeded; None where it is to be tried again."""
        state = None
        if end.kind is not ExitKind.COMPLETED:
            state = await self._records.ask(lambda recorder: recorder.step_state(step.name))
        # ZenML's record wins: the step's outputs are stored, whatever became of its sandbox.
        if end.kind is ExitKind.COMPLETED or (state is not None and state.successful):
            if self._ids_untold and sandbox is not None:
                self._beside(self._record_sandbox(step.name, sandbox))
            self._ended(step, "completed", end)
            return True
        # A sandbox that was lost early leaves the last record to the try before.
        if state is not None and (_is_running(state) or _has_failed(state, tries)) and sandbox:
            self._record_exit(state.id, sandbox, tries, end)
        stopped = state is not None and state.status in {"stopping", "stopped"}
        if end.is_infrastructure and not stopped and not self._ending:
            # Its sandbox may have been ended, or may have begun nothing, for that very reason.
            stopped = await self._records.ask(lambda recorder: recorder.stop_requested())
        if stopped and not self._ending:
            # The step itself noticed it first.
            self.stop(STOP_REASON)
        if self._ending or stopped:
            if not self.gave_up and state is not None and _is_running(state):
                await self._record_stop(step.name, self._why_ending or end.reason)
            # As the end of the run records it in ZenML.
            failed = self._timed_out and not stopped
            self._ended(step, "failed" if failed else "stopped", end)
            return False
        again = None if self._stopping.is_set() else self._may_retry(step, tries, end, state)
        if again is not None:
            if not end.is_infrastructure and state is not None and _is_running(state):
                # Its process could not say so; ZenML makes "retrying" of it.
                await self._record_failure(step.name, end.reason, final=False)
            self._ended(step, "retrying", replace(end, reason=f"{end.reason} {again}"))
            return None
        if self._asked_to_stop and end.is_infrastructure and not _has_failed(state, tries):
            # Else it might have been started again. The end of the run settles its record.
            self._ended(step, "stopped", end)
            return False
        await self._record_failure(step.name, end.reason, final=True)
        self._failed.append(step.name)
        self._ended(step, "failed", end)
        return False

    async def _record_sandbox(self, step: str, sandbox: str) -> None:
        """Store with a step's record which sandbox it had."""

        def record(recorder: RunRecorder) -> None:
            if (state := recorder.step_state(step)) is not None:
                recorder.record_exit(state.id, StepMetadata(sandbox_id=sandbox))

        await self._records.ask(record)

    async def _cached(self, step: str) -> bool:
        try:
            return await self._records.ask(lambda recorder: recorder.cached(step))
        except ModalrunError:
            raise
        except Exception as error:
            # What can't be looked up is run.
            self._say(f"Step `{step}` was not found in the cache: {type(error).__name__}: {error}")
            return False

    async def _record_stop(self, step: str, reason: str) -> None:
        await self._records.ask(lambda recorder: recorder.stop_step(step, reason))

    def _record_exit(self, record: str, sandbox: str, tries: _Tries, end: SandboxExit) -> None:
        """Store with the step's record how its sandbox ended, beside everything else."""
        facts = StepMetadata(
            sandbox_id=sandbox,
            exit_code=end.exit_code,
            exit_reason=end.reason,
            infrastructure_retries=tries.infrastructure or None,
        )
        self._beside(self._records.ask(lambda recorder: recorder.record_exit(record, facts)))

    async def _record_failure(self, step: str, reason: str, *, final: bool) -> None:
        await self._records.ask(lambda recorder: recorder.fail_step(step, reason, final=final))

    def _may_retry(
        self, step: StepOrder, tries: _Tries, end: SandboxExit, state: StepRecord | None
    ) -> str | None:
        """What will be done about a bad end, in words; None for nothing."""
        if end.is_infrastructure and not _has_failed(state, tries):
            most = self._order.infrastructure_retries
            if tries.infrastructure >= most:
                return None
            tries.infrastructure += 1
            # ZenML counts records as attempts: a new one would use up a retry of the user's.
            tries.record = state.id if state is not None and _is_running(state) else None
            return f"It is started again ({tries.infrastructure} of {most}), at no retry's cost."
        if end.kind is ExitKind.REFUSED or tries.failures >= step.retries:
            return None
        tries.failures += 1
        tries.record = None
        return f"Retry {tries.failures} of {step.retries}."

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    def _wanted(self, step: StepOrder, tries: _Tries, *, early: bool = False) -> SandboxRequest:
        return build_request(
            self._order,
            step.name,
            self._order.sandboxes[step.sandbox],
            attempt=tries.sandboxes,
            retries=tries.infrastructure,
            record=tries.record,
            early=early,
        )

    def _fail(self, step: StepOrder, reason: str, **more: Any) -> None:
        self._failed.append(step.name)
        self._tell(step.name, "failed", reason=reason, **more)

    def _ended(self, step: StepOrder, state: StepState, end: SandboxExit) -> None:
        """Tell of the end of a sandbox."""
        self._tell(
            step.name,
            state,
            attempt=self._tries[step.name].sandboxes,
            exit_code=end.exit_code,
            reason=None if end.kind is ExitKind.COMPLETED else end.reason,
        )
        if state in {"failed", "stopped"}:
            self._say(f"Step `{step.name}` {state}: {end.reason}")

    def _tell(self, step: str, state: StepState, **more: Any) -> None:
        """Write a line of the run's journal."""
        self._write(StepEvent(step, state, at=time.time(), **more))

    def _write(self, event: StepEvent) -> None:
        sys.stdout.write(events.line(event))
        sys.stdout.flush()


def _has_failed(state: StepRecord | None, tries: _Tries) -> bool:
    """Whether ZenML has the failure of this try, and not only of those before it."""
    if state is None or _is_running(state):
        return False
    return state.status != "retrying" or state.attempt > tries.failures


def _is_running(state: StepRecord) -> bool:
    """Whether a record waits for an end. "retrying" doesn't: that try has failed."""
    return not state.finished and state.status not in {"retrying", "stopping"}
