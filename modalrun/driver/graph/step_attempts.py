"""Run one step in sandboxes of its own, one attempt after the other.

Steps of static pipelines (`static_step`) and of dynamic ones (`isolated_steps`) share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modalrun.driver.lines.last_lines import LastLines
from modalrun.driver.processes.deadline import unwinding
from modalrun.errors import ConflictError
from modalrun.run import contract, tags
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import StepState
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import emit_step_event
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.usage import StepUsage
from modalrun.run.usage_log import of_killed
from modalrun.util.backoff import pauses
from modalrun.util.text import one_line

if TYPE_CHECKING:
    from modalrun.driver.graph.lease import Lease
    from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
    from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox


START_PAUSE, LONGEST_START_PAUSE = 1.0, 10.0
"""Seconds between two attempts to start a sandbox that Modal could not start."""

_UNCOUNTED = "It is started again, without using up a retry."


class StepAttempts:
    """Create a step's sandboxes, or use ones that are kept warm, and count the attempts.

    Attributes:
        name: The step's invocation id.
        sandbox: The sandbox that runs; None between attempts.
        sandbox_id: Modal's id of the last sandbox.
        gpu: The GPU of the last sandbox.
        count: How many sandboxes there were, with those that were lost.
        failures: How many failures used up one of the user's retries.
        restarts: How often the step was started again after the infrastructure had failed.
        record: ZenML's step run id that the next sandbox executes; None to make a new record.
        dynamic_run: For a step of a dynamic pipeline, ZenML's id of the run that it belongs to: the
            manifest's, or that of a child pipeline.
        child: What precedes the step's name in its label; empty unless it is a child pipeline's.
    """

    def __init__(
        self,
        manifest: RunManifest,
        name: str,
        spec: SandboxSpec,
        *,
        record: str | None = None,
        dynamic_run: str | None = None,
        child: str = "",
    ) -> None:
        self.name = name
        self.sandbox: StepSandbox | Lease | None = None
        self._ended: StepSandbox | Lease | None = None
        self.sandbox_id: str | None = None
        self.gpu: str | None = None
        self.count = 0
        self.failures = 0
        self.restarts = 0
        self._requested: float | None = None
        self._lost: float | None = None
        self.record = record
        self._manifest = manifest
        self._spec = spec
        self.dynamic_run = dynamic_run
        self.child = child

    async def create(
        self,
        sandboxes: WarmSandboxes,
        cancelled: asyncio.Event,
        *,
        on_wait: Callable[[str, CapacityWait | None], None] = lambda *_: None,
    ) -> StepSandbox | Lease | SandboxExit | None:
        """Create the next sandbox, or use one that is kept warm.

        Args:
            sandboxes: The sandboxes of the run.
            cancelled: Ends the attempts to create it when it is set.
            on_wait: Called with the step and what Modal has no place for yet; None for nothing.

        Returns:
            The sandbox; its exit if Modal refuses to create it, or has failed to start it too
            often; None if it was cancelled.
        """
        from modalrun.modal_api.sandboxes.capacity import GivenUp, sleep
        from modalrun.modal_api.sandboxes.step_sandboxes import Refused

        def tell_wait(wait: CapacityWait | None) -> None:
            if wait is None:
                self.emit("starting")
            else:
                self.emit("starting", at=wait.since, awaits=wait.what, following=wait.following)
            on_wait(self.child + self.name, wait)

        pause = pauses(START_PAUSE, LONGEST_START_PAUSE)
        while True:
            spec = self.next_spec()
            self.emit("starting")
            try:
                return await sandboxes.create(spec, cancelled, on_wait=tell_wait)
            except GivenUp:
                return None
            except Refused as error:
                reason = f"Modal refuses the sandbox of '{self.name}': {error}"
                return SandboxExit(ExitKind.REFUSED, None, reason)
            except ConflictError as error:
                reason = f"The sandbox could not start: {error.problem}."
                end = SandboxExit(ExitKind.NOT_STARTED, None, reason)
            if (retrying := self.restart(end)) is None:
                return end
            self.emit_end("retrying", end, retrying)
            try:
                await sleep(next(pause), cancelled)
            except GivenUp:
                return None

    def begin(self, sandbox: StepSandbox | Lease, *, began: float | None = None) -> None:
        """Attempt the step in a sandbox, and emit that it runs.

        Args:
            sandbox: The sandbox.
            began: When the step began (seconds since the epoch), if another driver began it.
        """
        self.sandbox, self.sandbox_id = sandbox, sandbox.id
        # Only the first choice is known of a sandbox that another driver created.
        self.gpu = sandbox.gpu or self._spec.resources.gpu
        self.emit(
            "running",
            sandbox=sandbox.id,
            gpu=self.gpu,
            cpu=self._spec.resources.cpu,
            memory=self._spec.resources.memory,
            began=began,
        )

    @property
    def keeps_entrypoint(self) -> bool:
        """Whether an ENTRYPOINT of the image may end its sandboxes before modalrun begins."""
        return self._spec.keeps_entrypoint

    @property
    def asked(self) -> dict[str, Any]:
        """What its last sandbox has asked for but the GPU, and when: fields of `StepMetadata`."""
        return {
            "cpu": self._spec.resources.cpu,
            "memory": self._spec.resources.memory,
            "regions": ",".join(self._spec.regions) or None,
            "lost": self._lost,
            "requested": self._requested,
        }

    async def wait(self) -> SandboxExit:
        """Wait for the end of the attempt."""
        assert self.sandbox is not None
        end = await self.sandbox.ended()
        end = end.with_memory_limit(self._spec.resources.memory_limit)
        self._ended, self.sandbox = self.sandbox, None
        return end

    async def last_lines(self) -> list[str]:
        """Return the last lines that were printed in the sandbox of the last attempt."""
        return LastLines.of(await self._ended.output_tail()) if self._ended else []

    async def used(self, record: str) -> StepUsage | None:
        """Return what the step has used in a sandbox that was killed, as far as that was told.

        Args:
            record: ZenML's id of its record.
        """
        return of_killed(record, await self._ended.told_usage()) if self._ended else None

    def restart(self, end: SandboxExit) -> str | None:
        """Count a restart for the infrastructure's fault; return why, None if it is refused.

        One for a sandbox that has not begun the step costs nothing.
        """
        if end.kind is ExitKind.NOT_BEGUN:
            return f"{end.reason} {_UNCOUNTED}"
        limit = self._manifest.plan.settings.infrastructure_retries
        if self.restarts >= limit:
            return None
        self.restarts += 1
        self._lost = self._lost or self._requested
        again = f"It is started again ({self.restarts} of {limit}), without using up a retry."
        return f"{end.reason} {again}"

    def emit_loss(self) -> None:
        """Emit that the step is started again, because its sandbox was lost with its driver."""
        self.emit("retrying", reason=f"Its sandbox was lost. {_UNCOUNTED}")

    def fail(self) -> None:
        """Use up one of the user's retries: the next sandbox makes a new record."""
        self.failures += 1
        self.record = self._lost = None

    def emit(self, state: StepState, **fields: Any) -> None:
        """Emit the step's new state, with further fields of `StepEvent`."""
        attempt = max(self.count, 1)
        restarts = max(attempt - 1 - self.failures, 0)
        label = self.child + self.name
        emit_step_event(label, state, attempt=attempt, restarts=restarts, **fields)

    def emit_end(self, state: StepState, end: SandboxExit, reason: str | None = None) -> None:
        """Emit the end of an attempt; `reason` replaces that of the exit."""
        if end.kind is not ExitKind.COMPLETED:
            reason = reason or end.reason
        self.emit(state, exit_code=end.exit_code, reason=reason)

    def next_spec(self) -> SandboxSpec:
        """Count an attempt; return its sandbox: the planned one with the attempt's values."""
        self.count += 1
        run_id, spec = self._manifest.run_id, self._spec
        self._requested = time.time()
        metadata = {**self.asked, "infrastructure_retries": self.restarts or None}
        env = {
            **spec.env,
            contract.RUN_ID: self.dynamic_run or run_id,
            contract.STEP: self.name,
            contract.ATTEMPT: str(self.failures + 1),
            contract.STEP_METADATA: json.dumps(metadata),
        }
        labels = {**spec.tags, tags.TAG_RUN: run_id, tags.TAG_ATTEMPT: str(self.count)}
        if self.child:
            env[contract.CHILD] = self.child
        if self.record is not None:
            env[contract.STEP_RUN] = self.record
        if self.record is not None and self.dynamic_run:
            labels[tags.TAG_RECORD] = self.record
        name = tags.step_sandbox_name(run_id, self.name, self.count, self.dynamic_run)
        return replace(spec, name=name, tags=labels, env=env)


async def unwind(sandbox: StepSandbox | Lease, reason: str) -> None:
    """Let the code in a sandbox unwind at the run's timeout, for a while: it records where it was.

    What can't be told must not keep it running, so this raises nothing.
    """

    async def told() -> None:
        # User code of a dynamic pipeline can write the file that has the reason.
        await sandbox.write(f"{contract.END}{one_line(reason, 500)}\n")
        await sandbox.ended()

    with contextlib.suppress(Exception):
        await asyncio.wait_for(told(), unwinding())
