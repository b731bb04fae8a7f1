"""Assemble the server from its parts and run it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from modalrun import __version__
from modalrun.localmodal import peers
from modalrun.localmodal.admin import Admin
from modalrun.localmodal.idleness import Idleness
from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.python_environment import PythonEnvironments
from modalrun.localmodal.sandbox.sandboxes import Sandboxes
from modalrun.localmodal.sandbox.starter import Starter
from modalrun.localmodal.server import http
from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.server.faults import Faults
from modalrun.localmodal.server.rpc import COMMAND_ROUTER, Dispatcher
from modalrun.localmodal.server.transport import TwoProtocolServer
from modalrun.localmodal.server_info import UNISOLATED_VARIABLE, is_set
from modalrun.localmodal.services.apps import Apps
from modalrun.localmodal.services.command_router import CommandRouter
from modalrun.localmodal.services.dicts import Dicts
from modalrun.localmodal.services.environments import Environments, Workspace
from modalrun.localmodal.services.exec_rpcs import ExecRpcs
from modalrun.localmodal.services.images import Images
from modalrun.localmodal.services.log_rpcs import LogRpcs
from modalrun.localmodal.services.mounts import Mounts
from modalrun.localmodal.services.named import NamedRpcs
from modalrun.localmodal.services.queues import Queues
from modalrun.localmodal.services.rules import CATALOG_FILE, CatalogRules
from modalrun.localmodal.services.sandbox_rpcs import SandboxRpcs
from modalrun.localmodal.services.secrets_rpcs import Secrets
from modalrun.localmodal.services.tunnel_rpcs import TunnelRpcs
from modalrun.localmodal.services.volume_files import VolumeFiles
from modalrun.localmodal.services.volume_sync import VolumeSync
from modalrun.localmodal.services.volumes import Volumes
from modalrun.localmodal.signals import Signal
from modalrun.localmodal.storage.disk import Disk
from modalrun.localmodal.storage.ids import is_sandbox_id
from modalrun.localmodal.storage.logstore import LogStore
from modalrun.localmodal.storage.paths import StateDir, write_private
from modalrun.localmodal.storage.store import Store

log = logging.getLogger(__name__)

SHARED_VOLUMES_VARIABLE = "MODALRUN_LOCAL_SHARED_VOLUMES"
HOST = "127.0.0.1"
_GRACE = 1.0
"""Seconds that calls may take to finish when the server ends."""


class _Notifier(logging.Handler):
    """Fire a signal when the server's log grows."""

    def __init__(self, signal_: Signal, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._signal = signal_
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._signal.fire)


class LocalServer:
    """A server on a state folder."""

    def __init__(
        self,
        state: StateDir,
        *,
        idle_timeout: float,
        retention: float,
        lenient: bool = False,
        isolated_python: bool = False,
    ) -> None:
        """
        Args:
            state: The state folder. The caller holds its server lock, and it is the working
                folder: the path of a socket has 108 bytes at most.
            idle_timeout: Seconds without a running sandbox and without a call after which the
                server ends; 0 for never.
            retention: Seconds after which a finished sandbox is deleted.
            lenient: Whether the rules of the catalog are left out.
            isolated_python: Whether each image has a Python of its own.
        """
        self._state = state
        self._idle_timeout = idle_timeout
        self._retention = retention
        self._rules = CatalogRules(lenient=lenient)
        self._pythons = PythonEnvironments(state.pythons) if isolated_python else None
        self._started_at = time.time()
        self._guard = Guard()
        self._faults = Faults(state.faults_file)
        self._idleness = Idleness(idle_timeout)
        self._disk = Disk(state.root, lambda: self._faults.script.disk_full)
        self._store = Store(state.database, self._disk, lambda: self._faults.script.clock)
        self._logs = LogStore(state.root / "logs", self._store.clock, self._disk)
        self.sandboxes = Sandboxes(
            state,
            self._store,
            self._logs,
            self._disk,
            self._faults,
            Starter(state, self._logs, isolated=not is_set(UNISOLATED_VARIABLE)),
            self._idleness.busy,
        )
        self._ending = asyncio.Event()
        self._admin = Admin(state, self._store, self._logs, self.sandboxes, self.status, self.end)
        logging.getLogger().addHandler(
            _Notifier(self._admin.log_changed, asyncio.get_running_loop())
        )
        self.sandboxes.recover()
        self._build()

    def _build(self) -> None:
        store, guard, sandboxes = self._store, self._guard, self.sandboxes
        rules, faults = self._rules, self._faults
        mounts = self._mounts = Mounts(self._state, store, guard, self._disk)
        apps = Apps(store, sandboxes, self._logs.changed.fire)
        images = Images(
            store,
            mounts,
            failing_build=faults.failing_build,
            rules=rules,
            pythons=self._pythons,
        )
        secrets = Secrets(store)
        shared = os.environ.get(SHARED_VOLUMES_VARIABLE) == "1"
        volumes = Volumes(self._state, store, shared=shared)
        queues, dicts = Queues(store), Dicts(store)
        files = VolumeFiles(volumes, mounts, guard, self._disk)
        dispatcher = Dispatcher(
            authorise=self._authorise,
            before=faults.before,
            active=self._idleness.busy,
            problem=self._disk.problem,
        )
        for subject in (
            Environments(store, rules, (apps, volumes, queues, dicts)),
            Workspace(guard),
            apps,
            images,
            mounts,
            secrets,
            volumes,
            files,
            VolumeSync(volumes, sandboxes),
            queues,
            dicts,
            NamedRpcs(volumes, queues, dicts),
            SandboxRpcs(
                store, guard, apps, images, mounts, secrets, volumes, sandboxes, rules, faults
            ),
            LogRpcs(store, self._logs, apps, images, sandboxes, faults),
            CommandRouter(self._logs, sandboxes, faults),
            ExecRpcs(sandboxes, secrets),
            TunnelRpcs(sandboxes),
        ):
            dispatcher.add(subject)
        routes: dict[tuple[str, str], http.Route] = {
            ("PUT", "blob"): mounts.put_blob,
            ("GET", "volume"): files.get_block,
        }
        self._server = TwoProtocolServer(
            dispatcher, lambda reader, writer: self._serve_http(reader, writer, routes)
        )

    def _authorise(self, service: str, metadata: Mapping[str, Any]) -> str | None:
        if service == COMMAND_ROUTER:
            bearer = str(metadata.get("authorization", "")).removeprefix("Bearer ")
            if (task_id := self._guard.signed_subject(bearer)) is None:
                raise GRPCError(Status.UNAUTHENTICATED, "The command router's token is not valid")
            return task_id
        if not self._guard.allows_token(metadata):
            raise GRPCError(
                Status.UNAUTHENTICATED,
                "The token is not that of this local Modal server, which makes a new one at each"
                ' start. Run this again: eval "$(modalrun local env)"',
            )
        return None

    async def _serve_http(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        routes: dict[tuple[str, str], http.Route],
    ) -> None:
        with self._idleness.busy():
            await http.serve(reader, writer, routes)

    async def _serve_control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the launcher, which needs no token: only this user can reach the socket."""
        if peers.is_own(writer.get_extra_info("socket")):
            await self._serve_http(reader, writer, self._admin.routes)
        else:
            writer.close()

    def status(self) -> dict[str, Any]:
        """Return what `modalrun local status` shows; never the token or the value of a secret."""
        now = time.time()
        return {
            "url": self._guard.url,
            "pid": os.getpid(),
            "version": __version__,
            "python": sys.prefix,
            "state_dir": str(self._state.root),
            "started_at": self._started_at,
            "uptime_seconds": round(now - self._started_at, 3),
            "idle_timeout_seconds": self._idle_timeout,
            "lenient": self._rules.lenient,
            "isolated_python": self._pythons is not None,
            "isolation": self.sandboxes.starter.isolation.status(),
            "catalog": CATALOG_FILE,
            "faults": self._faults.current_problem(),
            "preload": self.sandboxes.starter.warm.status(),
            "apps": self._store.count("app"),
            "sandboxes": self._store.count_sandboxes(),
            "running": [record.summary() for record in self.sandboxes.running()],
        }

    def _end_of_idleness(self) -> None:
        # A command that holds this lock relies on the server: stay alive then.
        lock = os.open(self._state.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            self._idleness.touch()
            return
        self._state.info_file.unlink(missing_ok=True)
        self.end(f"it was idle for {self._idle_timeout:g} seconds")

    def end(self, reason: str) -> None:
        """End gracefully: terminate running sandboxes first."""
        if not self._ending.is_set():
            log.info("the server ends: %s", reason)
        self._admin.ending = True
        self._ending.set()

    async def _listen(self) -> None:
        # A port that nobody knows from an earlier server.
        await self._server.start(HOST, 0, backlog=1024)
        # It replaces the socket of a killed server.
        await asyncio.start_unix_server(
            self._serve_control, self._state.control_socket.name, backlog=1024
        )
        self._guard.url = f"http://{HOST}:{self._server.port}"

    def _write_info(self) -> None:
        """Write what the launcher needs to reach this server: a `ServerInfo`."""
        info = {
            "url": self._guard.url,
            "token_id": self._guard.token_id,
            "token_secret": self._guard.token_secret,
            "pid": os.getpid(),
            "version": __version__,
            "started_at": self._started_at,
            "isolated_python": self._pythons is not None,
        }
        write_private(self._state.info_file, json.dumps(info))

    async def run(self, on_ready: Any) -> None:
        """Serve until the end. Call `on_ready` when the server answers."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end, f"signal {number.name}")
        await self._listen()
        self._write_info()
        log.info("serving on %s", self._guard.url)
        await self.sandboxes.starter.begin()
        self._idleness.begin(self._end_of_idleness)
        on_ready()
        tidy = asyncio.create_task(asyncio.to_thread(self._tidy_folders))
        loop.call_soon(self._forget_old)
        await self._ending.wait()
        self._state.info_file.unlink(missing_ok=True)
        self._idleness.stop()
        await self.sandboxes.shut_down()
        self._admin.log_changed.fire()
        if self._idleness.users:
            # Streams still send the end of their sandbox.
            await self._idleness.quiet.wait(_GRACE)
        self._server.close()
        await tidy
        self._store.close()

    def _forget_old(self) -> None:
        before = time.time() - self._retention
        self.sandboxes.forget(before)
        self._mounts.forget(before)

    def _tidy_folders(self) -> None:
        """Remove the folders of sandboxes of a killed server. Blocking."""
        for folder in (self._state.root / "sandboxes").iterdir():
            if is_sandbox_id(folder.name) and self.sandboxes.live(folder.name) is None:
                rootfs.remove(folder)
