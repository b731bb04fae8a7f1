"""Keep step sandboxes warm: give a sandbox whose step has ended the next one of its kind.

With `keep_warm: 0` each step gets a sandbox of its own. Else a sandbox is a worker
(`driver/step_worker.py`) that takes orders. It is created for a step whose turn has come, and never
ahead; for the first steps the submission does that. The driver learns from an event on the worker's
output how a step has ended; only the worker's first process can write it (`run/event_proof.py`),
and it repeats a secret.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from modalrun.driver.graph.lease import Lease
from modalrun.driver.processes.tasks import Tasks
from modalrun.errors import ModalrunError
from modalrun.run import contract, sandbox_exit, tags
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import Event, Idle, LinesOf, OrderEnd
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import log_line, write_event
from modalrun.run.sandbox_exit import ExitKind, read_exit
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.step_order import (
    StepOrder,
    kind_of,
    label_of,
    labels_of,
    order_of,
    worker_of,
)

if TYPE_CHECKING:
    from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox
    from modalrun.modal_api.sandboxes.step_sandboxes import StepSandboxes

OnWait = Callable[[CapacityWait | None], None]

BEGIN_SECONDS = 30.0
"""How long a worker that runs may take to begin another step; then it is given up."""

DRAIN_SECONDS = 5.0
"""How long a sandbox that has ended may take to deliver its last output."""


@dataclass(eq=False)
class _Worker:
    """A sandbox that is kept warm; without a `kind` it ends after its step."""

    sandbox: StepSandbox
    kind: str | None
    lease: Lease | None
    step: str
    served: int = 1
    idle_since: float = 0.0
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Waiting:
    """A creation that is needless once a worker of its kind is free."""

    kind: str
    free: asyncio.Future[_Worker] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class WarmSandboxes:
    """Create step sandboxes as `StepSandboxes` does, or use workers again.

    Attributes:
        expected: Returns the kinds of the steps that are still to come, for which workers wait;
            None where that is not known.
    """

    def __init__(self, manifest: RunManifest, sandboxes: StepSandboxes) -> None:
        self.expected: Callable[[], Collection[str] | None] = lambda: None
        self._sandboxes = sandboxes
        self._manifest = manifest
        self._seconds = manifest.plan.settings.keep_warm
        self._workers: dict[str, _Worker] = {}
        self._idle: list[_Worker] = []
        self._waiting: list[_Waiting] = []
        self._tasks = Tasks()
        self._terminations = Tasks()

    async def open(self) -> None:
        """Connect to Modal; see `StepSandboxes.open`."""
        await self._sandboxes.open()

    async def create(
        self, spec: SandboxSpec, given_up: asyncio.Event, *, on_wait: OnWait = lambda _: None
    ) -> StepSandbox | Lease:
        """Return a sandbox that runs a step: a worker that is or becomes free, or a new one.

        Args:
            spec: A sandbox of the step's own.
            given_up: Once set, no further attempt is made, and no place is waited for.
            on_wait: Called when Modal has no place for it; see `StepSandboxes.create`.

        Raises:
            GivenUp: `given_up` is set.
            Refused: Modal refuses the request.
        """
        if not self._seconds:
            return await self._sandboxes.create(spec, given_up, on_wait=on_wait)
        while True:
            worker = self._take(kind_of(spec))
            if worker is None:
                found = await self._create(spec, given_up, on_wait)
                if isinstance(found, Lease):
                    return found
                worker = found
            if (lease := await self._order(worker, spec)) is not None:
                return lease

    async def running(self, names: Iterable[str] = ()) -> list[StepSandbox | Lease]:
        """Return the attempts that run, including those that an earlier driver has started.

        `names` are looked up in addition to Modal's list, which may lag. A worker that another
        driver has created is left to its step, and ends with it.
        """
        return [
            found
            for sandbox in await self._sandboxes.running(names)
            if (found := self._adopt(sandbox)) is not None
        ]

    async def ahead(self) -> list[Lease]:
        """Return the attempts that the submission has begun (`RunManifest.ahead`)."""

        async def find(step: str) -> Lease | None:
            spec = self._manifest.sandbox_of(step)
            name = tags.step_sandbox_name(self._manifest.run_id, step, 1)
            sandbox = await self._sandboxes.named(name)
            return self._follow(sandbox, step, kind_of(spec)) if sandbox and spec else None

        found = await asyncio.gather(*map(find, self._manifest.ahead))
        return [lease for lease in found if lease is not None]

    def look(self) -> None:
        """End the workers that wait for a step which is not expected any more."""
        expected = self.expected() if self._idle else None
        for worker in list(self._idle):
            if expected is not None and worker.kind not in expected:
                self._end_idle(worker)

    def end_idle(self) -> None:
        """End all workers that wait."""
        for worker in list(self._idle):
            self._end_idle(worker)

    async def close(self) -> None:
        """End all workers that wait, and return when Modal has been told."""
        self.end_idle()
        await self._terminations.wait()

    async def terminate_all(self) -> None:
        """Terminate every step sandbox of the run, including those that are being created."""
        self.end_idle()
        await self._sandboxes.terminate_all()

    def _take(self, kind: str) -> _Worker | None:
        """Take the worker of a kind that has waited the least."""
        for worker in reversed(self._idle):
            if worker.kind == kind:
                self._stop_waiting(worker)
                return worker
        return None

    async def _create(
        self, spec: SandboxSpec, given_up: asyncio.Event, on_wait: OnWait
    ) -> Lease | _Worker:
        """Create a worker for a step, unless one of the same kind becomes free before."""
        from modalrun.modal_api.sandboxes.capacity import Unanswered

        waiting = _Waiting(kind_of(spec))
        self._waiting.append(waiting)
        enough = asyncio.Event()
        waiting.free.add_done_callback(lambda _: enough.set())
        stop = asyncio.create_task(given_up.wait())
        stop.add_done_callback(lambda _: enough.set())

        def wait(what: CapacityWait | None) -> None:
            if what is not None:
                # A worker that waits must not take the capacity of one that could run.
                self.end_idle()
            on_wait(what)

        try:
            worker = worker_of(spec, self._manifest.plan)
            sandbox = await self._sandboxes.create(worker, enough, on_wait=wait)
        except Exception as error:
            if not waiting.free.done():
                # A sandbox that is created later sees itself that the run has been stopped.
                raise
            if isinstance(error, Unanswered):
                # This one would run the step beside the free worker.
                self._tasks.start(self._sandboxes.end_late(str(spec.name)))
            return waiting.free.result()
        finally:
            stop.cancel()
            self._waiting.remove(waiting)
        lease = self._follow(sandbox, label_of(spec.env), waiting.kind)
        if waiting.free.done():
            # Both came.
            self._offer(waiting.free.result())
        return lease

    async def _order(self, worker: _Worker, spec: SandboxSpec) -> Lease | None:
        """Have a worker run another step; return None if it has ended, or can't be told."""
        idle = self._report_idle(worker)
        metadata = {**json.loads(spec.env[contract.STEP_METADATA]), "idle": idle}
        env = {**spec.env, contract.STEP_METADATA: json.dumps(metadata)}
        order = order_of(replace(spec, env=env))
        labels = labels_of(spec, order, worker.served + 1)
        worker.lease = lease = Lease(worker.sandbox, labels)
        worker.served += 1
        worker.step = label_of(order.env)
        # With the last output of the sandbox, which may say that it has begun.
        over = asyncio.ensure_future(lease.ended())
        ordered = asyncio.Event()
        begun = asyncio.ensure_future(self._have_begun(worker, order, ordered))
        # Calls may never end if the machine that runs the sandbox is gone.
        done, _ = await asyncio.wait(
            {over, begun}, timeout=BEGIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        over.cancel()
        begun.cancel()
        if lease.begun.is_set():
            return lease
        self._terminate(worker)
        if not done and ordered.is_set():
            # The step may run all the same. Once the sandbox has ended, its record says so.
            worker.kind = None
            limit = float(order.env[contract.TIMEOUT])
            self._tasks.start(self._expect_end(lease, limit))
            return lease
        # It has ended while it waited, or can't be used: as if it had never been.
        worker.lease = None
        return None

    async def _have_begun(self, worker: _Worker, order: StepOrder, ordered: asyncio.Event) -> None:
        assert worker.lease is not None
        try:
            # First: who takes the run over must know what the worker runs.
            await worker.sandbox.set_tags(worker.lease.tags)
            ordered.set()
            await worker.sandbox.write(f"{order.to_json()}\n")
        except ModalrunError as error:
            log_line(f"{worker.sandbox.id} takes no further step: {error.message}")
            return
        await worker.lease.begun.wait()

    def _adopt(self, sandbox: StepSandbox) -> StepSandbox | Lease | None:
        """Return the attempt that a running sandbox runs; None for a worker that waits."""
        if tags.TAG_ORDER not in sandbox.tags:
            return sandbox
        known = self._workers.get(sandbox.id)
        if known is not None:
            return known.lease
        lease = self._follow(sandbox, sandbox.step, None)
        if not lease.is_first:
            # The earlier driver may have ended before it could order it.
            self._tasks.start(self._expect_begin(lease))
        return lease

    async def _expect_end(self, lease: Lease, seconds: float) -> None:
        try:
            await asyncio.wait_for(lease.ended(), seconds)
        except asyncio.TimeoutError:
            lease.finish(sandbox_exit.SILENT)

    async def _expect_begin(self, lease: Lease) -> None:
        try:
            await asyncio.wait_for(lease.begun.wait(), BEGIN_SECONDS)
        except asyncio.TimeoutError:
            await lease.terminate()

    def _follow(self, sandbox: StepSandbox, step: str, kind: str | None) -> Lease:
        """Follow a worker that runs a step; return the attempt."""
        lease = Lease(sandbox, dict(sandbox.tags))
        self._workers[sandbox.id] = worker = _Worker(sandbox, kind, lease, step)
        self._tasks.start(self._watch(worker))
        return lease

    async def _watch(self, worker: _Worker) -> None:
        """Note the ends of a worker's steps, and its own."""
        reading = asyncio.create_task(
            worker.sandbox.listen(lambda event: self._receive(worker, event))
        )
        end = await worker.sandbox.ended()
        # It may have reported the end of its step before.
        await asyncio.wait({reading}, timeout=DRAIN_SECONDS)
        reading.cancel()
        del self._workers[worker.sandbox.id]
        if worker in self._idle:
            self._stop_waiting(worker)
            self._report_idle(worker)
        if (lease := worker.lease) is None:
            return
        if not (lease.is_first or lease.begun.is_set()):
            end = sandbox_exit.NOT_BEGUN
        elif end.kind is ExitKind.COMPLETED:
            end = sandbox_exit.UNREPORTED
        lease.finish(end)

    def _receive(self, worker: _Worker, event: Event | None) -> None:
        lease = worker.lease
        if lease is None:
            return
        if event is None or (isinstance(event, LinesOf) and lease.is_of(event)):
            # Where output is missing, it may have begun in it. Its end is the last output.
            lease.begun.set()
        elif isinstance(event, OrderEnd) and hmac.compare_digest(
            event.order.encode(), lease.tags[tags.TAG_ORDER].encode()
        ):
            end = read_exit(event.exit_code)
            worker.lease = None
            if worker.kind is None or end.is_infrastructure:
                self._terminate(worker)
            else:
                self._offer(worker)
            lease.finish(end)

    def _offer(self, worker: _Worker) -> None:
        """Give a free worker to who waits for one, or let it wait."""
        worker.idle_since = time.monotonic()
        for waiting in self._waiting:
            if waiting.kind == worker.kind and not waiting.free.done():
                waiting.free.set_result(worker)
                return
        self._idle.append(worker)
        worker.timer = asyncio.get_running_loop().call_later(self._seconds, self._end_idle, worker)

    def _stop_waiting(self, worker: _Worker) -> None:
        self._idle.remove(worker)
        if worker.timer is not None:
            worker.timer.cancel()

    def _end_idle(self, worker: _Worker) -> None:
        self._stop_waiting(worker)
        self._report_idle(worker)
        self._terminate(worker)

    def _report_idle(self, worker: _Worker) -> float:
        """Report how long a worker has waited; return the seconds."""
        seconds = time.monotonic() - worker.idle_since
        sandbox = worker.sandbox
        write_event(Idle(worker.step, sandbox.id, seconds, sandbox.gpu))
        return seconds

    def _terminate(self, worker: _Worker) -> None:
        self._terminations.start(worker.sandbox.terminate())
