"""The server: its parts put together, and its life from the first call to the last."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from grpclib.const import Status

from modalrun.localmodal.preload import Preload
from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.server import http
from modalrun.localmodal.server.auth import Guard, Identity
from modalrun.localmodal.server.faults import Faults
from modalrun.localmodal.server.rpc import COMMAND_ROUTER, Call, Dispatcher, RpcError
from modalrun.localmodal.server.transport import TwoProtocolServer
from modalrun.localmodal.services.apps import Apps
from modalrun.localmodal.services.command_router import CommandRouter
from modalrun.localmodal.services.environments import Environments, Workspace
from modalrun.localmodal.services.images import Images
from modalrun.localmodal.services.log_rpcs import LogRpcs
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.services.sandbox_rpcs import SandboxRpcs
from modalrun.localmodal.services.secrets_rpcs import Secrets
from modalrun.localmodal.services.volumes import Volumes
from modalrun.localmodal.signals import Signal
from modalrun.localmodal.status import sandbox_summary
from modalrun.localmodal.storage.ids import Clock
from modalrun.localmodal.storage.logstore import LogStore
from modalrun.localmodal.storage.paths import StateDir, write_private
from modalrun.localmodal.storage.store import Store

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
# How long calls may take to say their last words when the server ends, in seconds.
_GRACE = 1.0


class _Notifier(logging.Handler):
    """Tells those who follow the server's log that it has grown."""

    def __init__(self, signal_: Signal, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._signal = signal_
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._signal.fire)


class LocalServer:
    """One server on one state folder."""

    def __init__(
        self, state: StateDir, *, idle_timeout: float, retention: float, version: str
    ) -> None:
        """
        Args:
            state: The state folder; the caller holds its server lock.
            idle_timeout: Seconds without a running sandbox and without a call after which the
                server ends by itself; 0 for never.
            retention: Seconds after which a finished sandbox is forgotten.
            version: Of modalrun, for the info file.
        """
        self._state = state
        self._idle_timeout = idle_timeout
        self._retention = retention
        self._version = version
        self._started_at = time.time()
        self._identity = Identity.load(state.identity_file)
        self._guard = Guard(self._identity)
        self._faults = Faults(state.faults_file)
        clock = Clock()
        self._store = Store(state.database)
        self._logs = LogStore(state.root / "logs", clock)
        self.sandboxes = Sandboxes(
            state,
            self._store,
            self._logs,
            clock,
            boot_delay=lambda: self._faults.boot_delay,
            on_change=self._note_activity,
        )
        self._active_calls = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ending = asyncio.Event()
        self._quiet = Signal()
        self.logged = Signal()
        logging.getLogger().addHandler(_Notifier(self.logged, asyncio.get_running_loop()))
        self.sandboxes.recover()
        self._build(clock)

    def _build(self, clock: Clock) -> None:
        store, guard, sandboxes = self._store, self._guard, self.sandboxes
        environments = Environments(store, clock)
        self._mounts = Mounts(self._state, store, clock, guard, environments)
        apps = Apps(store, clock, environments, sandboxes, self._logs.changed.fire)
        images = Images(store, clock, environments, self._mounts, self._faults.failing_build)
        secrets = Secrets(store, clock, environments)
        volumes = Volumes(self._state, store, clock, environments)
        self._rpcs = SandboxRpcs(
            store=store,
            clock=clock,
            guard=guard,
            environments=environments,
            apps=apps,
            images=images,
            mounts=self._mounts,
            secrets=secrets,
            volumes=volumes,
            sandboxes=sandboxes,
        )
        dispatcher = Dispatcher(
            authorise=self._authorise, before=self._faults.before, active=self._count_call
        )
        for subject in (
            environments,
            Workspace(guard, self._identity.token_id),
            apps,
            images,
            self._mounts,
            secrets,
            volumes,
            self._rpcs,
            LogRpcs(store, self._logs, apps, images, sandboxes),
            CommandRouter(self._logs, sandboxes, lambda: self._faults.retained),
        ):
            dispatcher.add(subject)
        self._server = TwoProtocolServer([dispatcher], self._serve_http)

    def _authorise(self, service: str, call: Call, request: Any) -> None:
        if service == COMMAND_ROUTER:
            bearer = str(call.metadata.get("authorization", "")).removeprefix("Bearer ")
            if not self._guard.allows_signed(bearer, getattr(request, "task_id", "")):
                raise RpcError(Status.UNAUTHENTICATED, "The command router's token is not valid")
        elif not self._guard.allows_token(call.metadata):
            raise RpcError(
                Status.UNAUTHENTICATED,
                "The token is not that of this local Modal server; `modalrun local env` prints it",
            )

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count_call(+1)
        try:
            routes: dict[tuple[str, str], http.Route] = {
                ("PUT", "blob"): self._mounts.put_blob,
                ("GET", "status"): self._get_status,
                ("POST", "stop"): self._post_stop,
                ("POST", "preload"): self._post_preload,
                ("POST", "kill"): self._post_kill,
                ("GET", "log"): self._get_log,
            }
            await http.serve(reader, writer, routes)
        finally:
            self._count_call(-1)

    def _is_ours(self, request: http.Request) -> bool:
        secret = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._guard.allows_secret(secret)

    async def _get_status(self, request: http.Request) -> http.Response:
        if not self._is_ours(request):
            return http.Response(403)
        if self._ending.is_set():
            return http.Response(503)
        return http.Response(200, json.dumps(self.status()).encode())

    async def _post_stop(self, request: http.Request) -> http.Response:
        if not self._is_ours(request):
            return http.Response(403)
        self.end("it was asked to stop")
        return http.Response(200)

    async def _post_preload(self, request: http.Request) -> http.Response:
        if not self._is_ours(request):
            return http.Response(403)
        try:
            wanted = Preload.from_json(json.loads(b"".join([part async for part in request.body])))
        except ValueError:
            return http.Response(400)
        if not self._ending.is_set():
            self.sandboxes.warm.ask(wanted)
        return http.Response(200)

    async def _post_kill(self, request: http.Request) -> http.Response:
        """`POST /kill/SANDBOX`: end it as Modal's `terminate` does; whether it was running."""
        if not self._is_ours(request):
            return http.Response(403)
        sandbox_id = request.path.partition("/kill/")[2]
        if self._store.sandbox(sandbox_id) is None:
            return http.Response(404)
        was_running = self.sandboxes.live(sandbox_id) is not None
        self.sandboxes.terminate(sandbox_id)
        await self.sandboxes.wait(sandbox_id, _GRACE)
        return http.Response(200, json.dumps({"was_running": was_running}).encode())

    async def _get_log(self, request: http.Request) -> http.Response:
        """`GET /log/SANDBOX` or `GET /log`: what was written, then what comes."""
        if not self._is_ours(request):
            return http.Response(403)
        sandbox_id = request.path.partition("/log/")[2]
        if not sandbox_id:
            return http.Response(200, stream=self._follow_server_log())
        if self._store.sandbox(sandbox_id) is None or not self._logs.has(sandbox_id):
            return http.Response(404)
        return http.Response(200, stream=self._logs.follow(sandbox_id))

    async def _follow_server_log(self) -> AsyncIterator[bytes]:
        with self._state.server_log.open("rb") as file:
            while True:
                if data := file.read(65536):
                    yield data
                elif self._ending.is_set():
                    return
                else:
                    await self.logged.wait()

    def status(self) -> dict[str, Any]:
        """What `modalrun local status` shows; never the token, never the value of a secret."""
        now = time.time()
        return {
            "url": self.url,
            "pid": os.getpid(),
            "version": self._version,
            "python": sys.prefix,
            "state_dir": str(self._state.root),
            "started_at": self._started_at,
            "uptime_seconds": round(now - self._started_at, 3),
            "idle_timeout_seconds": self._idle_timeout,
            "preload": self.sandboxes.warm.status(),
            "apps": self._store.count("app"),
            "sandboxes": self._store.count_sandboxes(),
            "running": [sandbox_summary(record) for record in self.sandboxes.running()],
        }

    def _count_call(self, change: int) -> None:
        self._active_calls += change
        if not self._active_calls:
            self._quiet.fire()
        self._note_activity()

    def _note_activity(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._idle_timeout and not self._active_calls and not self.sandboxes.running():
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._idle_timeout, self._end_of_idleness)

    def _end_of_idleness(self) -> None:
        import fcntl

        # A command that holds this lock has seen the server alive, or is about to: then live on.
        lock = os.open(self._state.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self._note_activity()
            return
        self._state.info_file.unlink(missing_ok=True)
        self.end(f"it was idle for {self._idle_timeout:g} seconds")

    def end(self, reason: str) -> None:
        """End gracefully: running sandboxes are terminated first."""
        if not self._ending.is_set():
            log.info("the server ends: %s", reason)
        self._ending.set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.port}"

    async def _listen(self) -> None:
        try:
            # The same port as last time, so that exported variables stay good.
            await self._server.start(HOST, self._identity.port, backlog=1024)
        except OSError:
            await self._server.start(HOST, 0, backlog=1024)
        self._identity.port = self._server.port
        self._identity.save(self._state.identity_file)
        self._mounts.base_url = self._rpcs.base_url = self.url

    def info(self) -> Mapping[str, Any]:
        """What the launcher needs to know to reach this server."""
        return {
            "url": self.url,
            "token_id": self._identity.token_id,
            "token_secret": self._identity.token_secret,
            "pid": os.getpid(),
            "version": self._version,
            "started_at": self._started_at,
        }

    async def run(self, on_ready: Any) -> None:
        """Serve until the end. `on_ready()` is called when calls are answered."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end, f"signal {number.name}")
        await self._listen()
        write_private(self._state.info_file, json.dumps(dict(self.info())))
        log.info("serving on %s", self.url)
        self.sandboxes.start_nursery()
        self._note_activity()
        on_ready()
        tidy = asyncio.create_task(asyncio.to_thread(self._tidy_folders))
        loop.call_soon(self._forget_old)
        await self._ending.wait()
        self._state.info_file.unlink(missing_ok=True)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        await self.sandboxes.shut_down()
        self.logged.fire()
        if self._active_calls:
            # Streams have the end of their sandbox to tell.
            await self._quiet.wait(_GRACE)
        self._server.close()
        await tidy
        self._store.close()

    def _forget_old(self) -> None:
        before = time.time() - self._retention
        self.sandboxes.forget(before)
        self._mounts.forget(before)

    def _tidy_folders(self) -> None:
        """Remove what sandboxes of a server that was killed have left behind. Blocking."""
        from modalrun.localmodal.sandbox import rootfs

        for folder in (self._state.root / "sandboxes").iterdir():
            if self.sandboxes.live(folder.name) is None:
                rootfs.remove(folder)
