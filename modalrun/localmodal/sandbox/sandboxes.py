"""Create, run and finish sandboxes, and record them."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

from modalrun.localmodal import certificates
from modalrun.localmodal.idleness import Idleness
from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.execs import Execs
from modalrun.localmodal.sandbox.live import Launch, LiveSandbox
from modalrun.localmodal.sandbox.process import settle
from modalrun.localmodal.sandbox.starter import Starter
from modalrun.localmodal.sandbox.tunnels import Tunnels, check_free
from modalrun.localmodal.server.faults import NOT_SCHEDULED, Faults
from modalrun.localmodal.server.rpc import invalid, not_found
from modalrun.localmodal.storage.disk import Disk
from modalrun.localmodal.storage.logstore import STDERR, LogStore
from modalrun.localmodal.storage.paths import StateDir
from modalrun.localmodal.storage.store import SandboxRecord, Store

log = logging.getLogger(__name__)

_Result = api.GenericResult
SUCCESS = _Result.GENERIC_STATUS_SUCCESS
FAILURE = _Result.GENERIC_STATUS_FAILURE
TERMINATED = _Result.GENERIC_STATUS_TERMINATED
TIMEOUT = _Result.GENERIC_STATUS_TIMEOUT
INIT_FAILURE = _Result.GENERIC_STATUS_INIT_FAILURE
IDLE_TIMEOUT = _Result.GENERIC_STATUS_IDLE_TIMEOUT
INTERNAL_FAILURE = _Result.GENERIC_STATUS_INTERNAL_FAILURE

KILLED_WITH_SERVER = (
    "The local Modal server was killed while this sandbox ran; its processes were killed with it."
)

_PLACE_SECONDS = 0.1
"""How often a sandbox that waits for a place looks for one."""

_SAVE_SECONDS = 1.0
"""How often a record that the disk had no room for is written."""

_EXIT_CODES: dict[int, int] = {TIMEOUT: 124, TERMINATED: 137, INTERNAL_FAILURE: 137}


def ended(sandbox_id: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, f"Sandbox '{sandbox_id}' has ended")


@dataclass(eq=False)
class Sandboxes:
    """All sandboxes of a state folder."""

    _state: StateDir
    _store: Store
    _logs: LogStore
    _disk: Disk
    _faults: Faults
    starter: Starter
    _busy: Callable[[], AbstractContextManager[None]]
    """A context for the life of a sandbox."""

    _live: dict[str, LiveSandbox] = field(default_factory=dict)
    _unsaved: dict[str, SandboxRecord] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: bool = False

    def create(self, record: SandboxRecord, launch: Launch) -> None:
        """Record and start a sandbox.

        Raises:
            GRPCError: Its name is taken in its app, or it cannot be isolated as it must be.
        """
        if self._closed:
            raise GRPCError(Status.UNAVAILABLE, "The local Modal server is ending")
        for other in self._live.values():
            if record.name and (other.record.app_id, other.record.name) == (
                record.app_id,
                record.name,
            ):
                raise GRPCError(
                    Status.ALREADY_EXISTS,
                    f"A sandbox named '{record.name}' is running in app '{record.app_name}' "
                    f"({other.record.id})",
                )
        if problem := self.starter.isolation.refusal(launch, record.workdir):
            raise invalid(problem)
        check_free(launch.ports, {id_: live.tunnels for id_, live in self._live.items()})
        self._disk.require(sum(file.content.stat().st_size for file in launch.files))
        fault = self._faults.end_of(record.tags.get("modalrun-role"))
        place = self._faults.script.has_place(record.gpu, 0.0)
        record.scheduled = place and (fault is None or fault.end != NOT_SCHEDULED)
        # First: a repeated call gets the sandbox that is recorded.
        self._logs.create(record.id)
        try:
            self._store.put_sandbox(record)
        except (OSError, sqlite3.Error):
            self._logs.remove(record.id)
            raise
        idleness = Idleness(record.idle_timeout_secs)
        folder = self._state.sandbox(record.id)
        sandbox = self._live[record.id] = LiveSandbox(
            record,
            launch,
            fault,
            idleness,
            Execs(folder, self._disk, self.starter.nursery, idleness.busy),
            Tunnels(launch.ports, idleness.busy, partial(certificates.context, self._state)),
        )
        task = asyncio.get_running_loop().create_task(self._live_with(sandbox))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live_with(self, sandbox: LiveSandbox) -> None:
        with self._busy():
            await self._run(sandbox)

    async def _run(self, sandbox: LiveSandbox) -> None:
        record = sandbox.record
        folder = self._state.sandbox(record.id)
        # No timeout counts it (for Functions: modal.com/docs/guide/timeouts, read 2026-11-28).
        await self._wait_for_place(sandbox)
        text = f"The sandbox ran longer than its timeout of {record.timeout_secs} seconds."
        # From then on: "maximum lifetime" (`modal/sandbox/_sandbox.py:236`, 1.6.4).
        timer = asyncio.get_running_loop().call_later(
            record.timeout_secs or math.inf, self._end, sandbox, TIMEOUT, text
        )
        try:
            await self._boot(sandbox)
            if not sandbox.must_end.done():
                await self._execute(sandbox)
        except (OSError, ValueError) as error:
            log.warning("%s could not be started: %s", record.id, error)
            reason = self._disk.problem(error) or str(error).replace(f"{folder}/root", "")
            self._fail(sandbox, INIT_FAILURE, f"The sandbox could not be started: {reason}")
        except Exception:
            self._break(sandbox)
        timer.cancel()
        is_committed = False
        try:
            await sandbox.execs.close()
            if sandbox.process is not None:
                sandbox.process.release()
            is_committed = await self._commit(sandbox)
        except Exception:
            self._break(sandbox)
        self._finish(sandbox)
        if is_committed:
            await asyncio.to_thread(rootfs.remove, folder)

    async def _commit(self, sandbox: LiveSandbox) -> bool:
        """Commit the volumes at the end; return whether all is committed."""
        problem = await sandbox.launch.volumes.close()
        for path in sandbox.launch.volumes.changed_at_once:
            text = f"{path} was changed in place. Sandboxes share a file of its size, so others saw"
            text += " the change before its commit. To prevent it, write a new file and rename it."
            self._logs.append(
                sandbox.record.id, STDERR, f"{text}\n".encode("utf-8", "backslashreplace")
            )
        if problem is not None:
            reason = self._disk.problem(problem) or str(problem)
            text = f"Not all changes of its volumes are committed: {reason}"
            self._fail(sandbox, INTERNAL_FAILURE, text)
        return problem is None

    async def _boot(self, sandbox: LiveSandbox) -> None:
        delay, fault = self._faults.script.boot_delay, sandbox.fault
        if fault is not None and fault.end == NOT_SCHEDULED:
            delay += fault.after or 0.0
        if delay:
            await asyncio.wait({sandbox.must_end}, timeout=delay)
        if fault is not None and fault.end == NOT_SCHEDULED:
            self._end(sandbox, fault.status, fault.text)

    async def _wait_for_place(self, sandbox: LiveSandbox) -> None:
        record, began = sandbox.record, time.monotonic()
        while not self._faults.script.has_place(record.gpu, time.monotonic() - began):
            if (await asyncio.wait({sandbox.must_end}, timeout=_PLACE_SECONDS))[0]:
                return
        record.scheduled = sandbox.fault is None or sandbox.fault.end != NOT_SCHEDULED

    async def _execute(self, sandbox: LiveSandbox) -> None:
        record = sandbox.record
        process = await self.starter.start(sandbox)
        if process is None:
            return
        fault, end = sandbox.fault, partial(self._end, sandbox)
        timers: list[asyncio.TimerHandle] = []
        try:
            await sandbox.tunnels.open()
            sandbox.started.set_result(process)
            record.started_at = self._store.clock.now()
            self._save(record)
            timers += fault.timers(process.interrupt, end) if fault is not None else []
            text = f"The sandbox was idle for {record.idle_timeout_secs} seconds."
            sandbox.begin(partial(end, IDLE_TIMEOUT, text), self._store.clock.now)
            sandbox.exit = exit_ = await process.exited
        finally:
            sandbox.close()
            for timer in timers:
                timer.cancel()
            # Its ports may not have opened.
            process.kill()
            await process.exited
        if exit_.code is None and sandbox.end is None:
            sandbox.end = (INTERNAL_FAILURE, "The keeper of this sandbox was killed.")
        elif exit_.code is not None and not exit_.killed:
            # It ended by itself just before the kill.
            sandbox.end = None
        if fault is not None and fault.is_told_afterwards and sandbox.end is None:
            sandbox.end = (fault.status, fault.text)

    def _break(self, sandbox: LiveSandbox) -> None:
        """Set the end of a sandbox in whose life the server has the current, unforeseen error."""
        log.exception("%s failed", sandbox.record.id)
        self._fail(sandbox, INTERNAL_FAILURE, "The local Modal server failed; see its log.")

    def _fail(self, sandbox: LiveSandbox, status: int, text: str) -> None:
        """Set the end of a sandbox that failed here; its stderr is what the SDK's user sees."""
        sandbox.end = (status, text)
        self._logs.append(sandbox.record.id, STDERR, f"{text}\n".encode())

    def _end(self, sandbox: LiveSandbox, status: int, exception: str) -> None:
        if sandbox.end is None and sandbox.exit is None:
            sandbox.end = (status, exception)
        settle(sandbox.must_end)
        if sandbox.process is not None:
            sandbox.process.kill()

    def _finish(self, sandbox: LiveSandbox) -> None:
        record = sandbox.record
        code = sandbox.exit.code if sandbox.exit else None
        if sandbox.end is not None:
            record.status, record.exception = sandbox.end
            record.exitcode = _EXIT_CODES.get(record.status, code or 1)
            if sandbox.fault is not None and record.status == sandbox.fault.status:
                record.exitcode = sandbox.fault.exit_code
        elif code == 0:
            record.status = SUCCESS
        else:
            record.status = FAILURE
            record.exitcode = 1 if code is None else code
        record.finished_at = self._store.clock.now()
        self._logs.finish(record.id)
        self._save(record)
        del self._live[record.id]
        if not sandbox.started.done():
            sandbox.started.set_result(None)
        sandbox.finished.set_result(record)

    def _save(self, record: SandboxRecord) -> None:
        """Store a record; keep it in memory while the disk is full."""
        try:
            self._store.put_sandbox(record)
            self._unsaved.pop(record.id, None)
        except (OSError, sqlite3.OperationalError) as error:
            if record.id not in self._unsaved:
                log.error("%s is not recorded yet: %s", record.id, error)
            self._unsaved[record.id] = record
            asyncio.get_running_loop().call_later(_SAVE_SECONDS, self._save, record)

    def terminate(self, sandbox_id: str, exception: str = "The sandbox was terminated.") -> None:
        """Kill a sandbox unless it has finished; do not wait."""
        sandbox = self._live.get(sandbox_id)
        if sandbox is not None:
            self._end(sandbox, TERMINATED, exception)

    def find(self, sandbox_id: str) -> SandboxRecord:
        """Return a sandbox by its id. Raises GRPCError (NOT_FOUND)."""
        live = self._live.get(sandbox_id)
        record = live.record if live else self._unsaved.get(sandbox_id)
        record = record or self._store.sandbox(sandbox_id)
        if record is None:
            raise not_found("Sandbox", sandbox_id)
        return record

    def of_task(self, task_id: str) -> SandboxRecord:
        """Return a sandbox by its task id. Raises GRPCError (NOT_FOUND)."""
        record = self._store.sandbox_of_task(task_id)
        if record is None:
            raise not_found("Task", task_id)
        return self.find(record.id)

    def live(self, sandbox_id: str) -> LiveSandbox | None:
        """Return a sandbox that has not finished."""
        return self._live.get(sandbox_id)

    def live_task(self, task_id: str) -> LiveSandbox:
        """Return a sandbox that has not finished by its task id. Raises GRPCError (NOT_FOUND)."""
        record = self.of_task(task_id)
        if (live := self.live(record.id)) is None:
            raise ended(record.id)
        return live

    def running(self, app_ids: list[str] | None = None) -> list[SandboxRecord]:
        """Return running sandboxes, newest first; of some apps or of all (None)."""
        records = [sandbox.record for sandbox in self._live.values()]
        chosen = [record for record in records if app_ids is None or record.app_id in app_ids]
        return sorted(chosen, key=lambda record: record.created_at, reverse=True)

    async def wait(self, sandbox_id: str, timeout: float) -> SandboxRecord:
        """Wait at most `timeout` seconds for a sandbox's end; return its record."""
        record = self.find(sandbox_id)
        live = self._live.get(sandbox_id)
        if live is not None and timeout > 0:
            await asyncio.wait({live.finished}, timeout=timeout)
        return record

    async def write_stdin(
        self,
        sandbox_id: str,
        data: bytes,
        *,
        offset: int | None = None,
        index: int | None = None,
        eof: bool,
    ) -> None:
        """Send input to a sandbox (`Stdin.write`); V2 has an offset, V1 an index.

        Raises:
            GRPCError: NOT_FOUND; FAILED_PRECONDITION if the input is closed.
        """
        self.find(sandbox_id)
        try:
            if (sandbox := self._live.get(sandbox_id)) is None:
                raise BrokenPipeError
            sandbox.idleness.touch()
            await sandbox.stdin.write(data, offset=offset, index=index, eof=eof)
        except BrokenPipeError:
            raise GRPCError(
                Status.FAILED_PRECONDITION, f"The input of sandbox '{sandbox_id}' is closed"
            ) from None

    async def shut_down(self) -> None:
        """Refuse new sandboxes, terminate all and wait for their end."""
        self._closed = True
        for sandbox in self._live.values():
            self._end(sandbox, TERMINATED, "The local Modal server was stopped.")
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        self.starter.close()

    def recover(self) -> None:
        """Record the end of sandboxes that were killed with the last server."""
        for record in self._store.unfinished():
            self._logs.recover(record.id)
            finished = replace(
                record,
                status=INTERNAL_FAILURE,
                exitcode=_EXIT_CODES[INTERNAL_FAILURE],
                exception=KILLED_WITH_SERVER,
                finished_at=self._store.clock.now(),
            )
            self._store.put_sandbox(finished)
            log.warning("%s ran when the last server was killed", record.id)

    def forget(self, before: float) -> None:
        """Delete the sandboxes and logs that ended before a time (seconds since 1970)."""
        for record in self._store.finished_before(before):
            self._logs.remove(record.id)
            self._store.delete_sandbox(record.id)
