"""The sandboxes of a dynamic pipeline's isolated steps, for the threads of ZenML's runner."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modalrun.driver import RUN_ID, STEP, STEP_FACTS, STEP_RUN, events
from modalrun.driver.ends import End, Kind
from modalrun.driver.events import StepEvent, StepState
from modalrun.driver.order import Order, SandboxOrder
from modalrun.driver.process import say
from modalrun.errors import RunFailedError
from modalrun.plan import MAX_NAME, MAX_TAG, TAG_PIPELINE, TAG_ROLE, TAG_RUN, TAG_STEP, fit

if TYPE_CHECKING:
    from modalrun.modal_api.fleet import Fleet, Member, Wanted

END_SECONDS = 20.0
"""How long the end of all sandboxes is waited for."""

T = TypeVar("T")


@dataclass(frozen=True)
class IsolatedStep:
    """An isolated step whose record ZenML has made.

    Attributes:
        name: Its invocation id.
        step_run: The id of its record.
        run_id: Of the run it belongs to: that of the order, or of a child pipeline.
        attempt: Which try it is, from 1.
        sandbox: The sandbox that it gets.
    """

    name: str
    step_run: str
    run_id: str
    attempt: int
    sandbox: SandboxOrder


@dataclass
class _Going:
    step: IsolatedStep
    member: Member
    over: threading.Event = field(default_factory=threading.Event)
    end: End | None = None


class IsolatedSteps:
    """Creates sandboxes and sees them through to their ends, in a loop of its own.

    Attributes:
        order: The run.
        on_end: Called from a thread of ours whenever a sandbox has ended.
    """

    def __init__(self, order: Order) -> None:
        """Connect.

        Args:
            order: The run; its variables are in the environment.

        Raises:
            ModalrunError: The token is not accepted.
        """
        from modalrun.modal_api.fleet import Fleet

        self.order = order
        self.on_end: Callable[[], None] = lambda: None
        self._going: dict[str, _Going] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="sandboxes", daemon=True).start()
        variables = {name: os.environ[name] for name in order.variables}
        self._fleet: Fleet = Fleet(order, variables, Path.cwd(), say)
        self._given_up = asyncio.Event()
        self._ask(self._fleet.open())

    def submit(self, step: IsolatedStep) -> str:
        """Create the sandbox of a step; returns Modal's id of it.

        Raises:
            RunFailedError: Modal refuses it, or the run is being ended.
        """
        from modalrun.modal_api.fleet import GivenUp, Refused

        self._tell(step, "starting")
        try:
            member = self._ask(self._fleet.create(self._wanted(step), self._given_up))
        except Refused as error:
            self._tell(step, "failed", reason=str(error))
            raise RunFailedError(f"Modal refuses the sandbox of '{step.name}': {error}") from error
        except GivenUp as error:
            raise RunFailedError("The run is being ended.") from error
        asked = step.sandbox
        self._tell(
            step,
            "running",
            sandbox=member.id,
            gpu=member.gpu,
            cpu=asked.cpu,
            memory=asked.memory,
        )
        going = self._going[step.step_run] = _Going(step, member)
        asyncio.run_coroutine_threadsafe(self._watch(going), self._loop)
        return member.id

    def end_of(self, step_run: str, *, wait: bool = False) -> End | None:
        """How the sandbox of a step has ended; None while it runs.

        Raises:
            KeyError: This process has not created it.
        """
        going = self._going[step_run]
        if wait:
            going.over.wait()
        return going.end

    def stop(self, step_run: str) -> None:
        """End the sandbox of a step now; nothing happens if it has ended, or is not known."""
        if step_run in self._going:
            self._ask(self._going[step_run].member.terminate())

    def end_all(self) -> None:
        """End every sandbox of the run, also those that are being created."""
        self._loop.call_soon_threadsafe(self._given_up.set)
        try:
            self._ask(asyncio.wait_for(self._fleet.terminate_all(), END_SECONDS))
        except Exception as error:
            say(f"The step sandboxes may still run: {type(error).__name__}: {error}")

    async def _watch(self, going: _Going) -> None:
        end = going.end = await going.member.ended()
        state: StepState = "completed" if end.kind is Kind.COMPLETED else "failed"
        reason = None if end.kind is Kind.COMPLETED else end.reason
        self._tell(going.step, state, exit_code=end.exit_code, reason=reason)
        going.over.set()
        await asyncio.to_thread(self.on_end)

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    def _wanted(self, step: IsolatedStep) -> Wanted:
        from modalrun.modal_api.fleet import TAG_ATTEMPT, Wanted

        # The names of a child pipeline's steps are its own.
        digest = hashlib.sha256(f"{step.run_id} {step.name}".encode()).hexdigest()[:8]
        return Wanted(
            sandbox=step.sandbox,
            name=fit(f"modalrun-{self.order.run_id}-{digest}-{step.attempt}", MAX_NAME),
            tags={
                TAG_RUN: self.order.run_id,
                TAG_ROLE: "step",
                TAG_STEP: fit(step.name, MAX_TAG),
                TAG_PIPELINE: fit(self.order.pipeline, MAX_TAG),
                TAG_ATTEMPT: str(step.attempt),
            },
            env=lambda gpu: _environment(step, gpu),
        )

    def _tell(self, step: IsolatedStep, state: StepState, **more: Any) -> None:
        """Write a line of the run's journal."""
        event = StepEvent(step.name, state, at=time.time(), attempt=step.attempt, **more)
        sys.stdout.write(events.line(event))
        sys.stdout.flush()


def _environment(step: IsolatedStep, gpu: str | None) -> dict[str, str]:
    facts = {
        "gpu": gpu,
        "cpu": step.sandbox.cpu,
        "memory": step.sandbox.memory,
        "regions": ",".join(step.sandbox.regions) or None,
    }
    return {
        RUN_ID: step.run_id,
        STEP: step.name,
        STEP_RUN: step.step_run,
        STEP_FACTS: json.dumps({name: v for name, v in facts.items() if v is not None}),
    }
