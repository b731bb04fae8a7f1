"""Fakes of the Modal gateway: they hold a run's state and log every effect in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.modal_api.client import Connection
from modalrun.modal_api.gateway import ModalGateway
from modalrun.modal_api.log_buffer import OutputChunk, StreamEnd
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.modal_api.sandboxes.termination import SandboxGroup
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.log_lines import LogLine
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.sandbox_exit import SandboxExit, read_exit
from modalrun.run.status import SandboxState

if TYPE_CHECKING:
    pass

NOW = datetime(2026, 11, 28, tzinfo=timezone.utc)
RUN_ID = "11111111-2222-3333-4444-555555555555"


class Effects(list[str]):
    """What the fakes were asked to do, in order; an effect can be made to fail.

    Attributes:
        errors: The effect -> the error that it raises, after it is logged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, BaseException] = {}

    def add(self, effect: str) -> None:
        self.append(effect)
        if effect in self.errors:
            raise self.errors[effect]


class FakeObserver:
    """A `RunObserver` that keeps what it receives."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: list[str] = []
        self.waits: list[CapacityWait | None] = []
        self.on_line: Callable[[str], None] = lambda _: None
        self.output: list[str] = []
        self.questions: list[str | None] = []
        self.reader_gone = False

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def waiting(self, wait: CapacityWait | None) -> None:
        self.waits.append(wait)

    def say(self, text: str, style: str | None = None) -> None:
        self.lines.append(text)
        self.on_line(text)

    def begin(self, *_: Any) -> None: ...

    def event(self, *_: Any) -> None: ...

    def line(self, line: LogLine) -> None:
        if self.reader_gone:
            raise BrokenPipeError
        self.output.append(line.text)

    def question(self, text: str | None) -> None:
        self.questions.append(text)


class FakeConnection(Connection):
    """A connection to nothing."""

    def __init__(self, credentials: tuple[str, str] | None = None) -> None:
        self.credentials = credentials
        self.mounted = {}
        self.builders = {"main": "2025.06"}

    def app(self, name: str, environment: str | None, *, create: bool = True) -> Any:
        return f"{environment}/{name}"

    def attach(self, sandbox_id: str, run_id: str) -> Any:
        raise NotFoundError(f"There is no sandbox {sandbox_id}.")

    def driver_environment(self, environment: str | None) -> dict[str, str]:
        token = {"MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1"}
        return {**token, "MODAL_ENVIRONMENT": str(environment)}


class FakeSandbox(RunningSandbox):
    """A run sandbox that exists as far as its id is known."""

    def __init__(self, sandbox_id: str, gpu: str | None = None) -> None:
        self.id = sandbox_id
        self.app_id = "ap-1"
        self.gpu = gpu
        self.cancelled = False
        self._end: SimpleQueue[SandboxExit | BaseException] = SimpleQueue()

    @property
    def url(self) -> str | None:
        return None

    def finish(self, end: int | SandboxExit | ModalrunError) -> None:
        """End with an exit code or an exit, or with an error of those who wait."""
        self._end.put(read_exit(end) if isinstance(end, int) else end)

    def wait(self) -> SandboxExit:
        end = self._end.get()
        if isinstance(end, BaseException):
            raise end
        return end

    def told_usage(self) -> list[str]:
        return []

    def output_tail(self) -> str:
        return f"last words of {self.id}\n"

    def cancel_wait(self) -> None:
        self.cancelled = True
        self._end.put(asyncio.CancelledError())


class FakeStreams:
    """Live streams of sandboxes: what was fed to them, until each sandbox that was added ends."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self._open = 0
        self._items: SimpleQueue[OutputChunk | StreamEnd | None] = SimpleQueue()

    def feed(self, sandbox: str, text: str, source: str = "stdout", **more: Any) -> None:
        self._items.put(OutputChunk(sandbox, source, text, **more))

    def end(self, sandbox: str, error: ModalrunError | None = None) -> None:
        for source in ("stdout", "stderr"):
            self._items.put(StreamEnd(sandbox, source, error))

    def add(self, sandbox: str, *, skip: Mapping[Any, int] | None = None) -> None:
        self.added.append(sandbox)
        self._open += 2

    def hold(self) -> None:
        self._open += 1

    def release(self) -> None:
        self._items.put(StreamEnd("", ""))

    def close(self) -> None:
        self._items.put(None)

    def __iter__(self) -> Iterator[list[OutputChunk | StreamEnd]]:
        while self._open:
            item = self._items.get()
            if item is None:
                return
            if item.sandbox:
                yield [item]
            self._open -= isinstance(item, StreamEnd)


class FakeSandboxes(SandboxGroup):
    """All sandboxes of a run: counts of those that are still running."""

    def __init__(self, effects: Effects, run: int = 1, steps: int = 0) -> None:
        self.effects = effects
        self.run = run
        self.steps = steps

    def terminate(self, *, wait: bool = True, seconds: float = 0) -> int:
        self.effects.add("end sandboxes")
        ended, self.run, self.steps = self.run + self.steps, 0, 0
        return ended

    def expect(self, steps: Any) -> None:
        """They are counted anyway."""

    def request_stop(self) -> bool:
        self.effects.add("ask to stop")
        return bool(self.run)

    def wait(self, role: str) -> None:
        self.effects.add("wait for steps" if role == "step" else "wait for the run sandbox")
        if role == "step":
            self.steps = 0
        else:
            self.run = 0

    def running(self, role: str | None = None) -> list[Any]:
        count = {"step": self.steps, "run": self.run}.get(role or "", self.steps + self.run)
        return [SimpleNamespace(object_id=f"sb-{n}") for n in range(count)]


class FakeModal(ModalGateway):
    """Modal with at most one run.

    Attributes:
        sandbox: The sandbox that a creation returns.
        existing: The id of a run sandbox that runs already.
        last: The id of the last run sandbox, which may have ended.
        sandboxes: All sandboxes of the run.
        request: The arguments of the last creation.
        ahead: The secrets of the steps that were created ahead.
        on_create: Called with the keyword arguments of each creation.
        on_source: Called with the source tree of each creation.
        app: The id of the app that `app_id` finds.
        environment: The default environment.
        last_in: The one where the last run sandbox is.
        apps: The environments that were looked into for an app.
        built: The images that Modal has.
        found: Where the run sandbox is that a submission could not record.
    """

    def __init__(self, effects: Effects) -> None:
        self.effects = effects
        self.sandbox = FakeSandbox("sb-new")
        self.existing: str | None = None
        self.last: str | None = None
        self.sandboxes = FakeSandboxes(effects)
        self.request: dict[str, Any] = {}
        self.ahead: Mapping[str, str] = {}
        self.on_create: Callable[[dict[str, Any]], None] = lambda _: None
        self.on_source: Callable[[Path], object] = lambda _: None
        self.app: str | None = "ap-1"
        self.environment = self.last_in = "main"
        self.apps: list[str | None] = []
        self.built: frozenset[str] = frozenset()
        self.streams = FakeStreams()
        self.state = SandboxState("running")
        self.found: RunMetadata | None = None
        self.needs: AccountNeeds | None = None
        self.credentials: tuple[str, str] | None = None

    def connect(self, target: str, *, credentials: tuple[str, str] | None = None) -> Connection:
        self.effects.add(f"connect {target}")
        self.credentials = credentials
        return FakeConnection(credentials)

    def find_announced(
        self, connection: Connection, run_id: str, announced: Announced, *, placed: bool = False
    ) -> RunMetadata | None:
        return self.found

    def environment_name(self, connection: Connection, name: str | None) -> str:
        return name or self.environment

    def check_names(self, connection: Connection, needs: AccountNeeds) -> None:
        self.effects.add("check names")
        self.needs = needs

    def check_workspace(self, connection: Connection, needs: AccountNeeds) -> None:
        self.effects.add("check workspace")

    def image_builder(self, *_: Any) -> None:
        """Need no other version."""

    def look_up_images(self, _: Any, app: Any, images: Any) -> frozenset[str]:
        self.effects.add("look up images")
        return frozenset(images) & self.built

    def mount(self, connection: Connection, app: Any, image: str, source: Path) -> None:
        self.effects.add(f"send source for {image}")
        connection.mounted[image, source] = image  # type: ignore[assignment]

    def build_images(self, connection: Connection, plan: Any, *_: Any) -> dict[Any, str]:
        self.effects.add("build images")
        self.built |= {"im-1"}
        return {sandbox.image: "im-1" for sandbox in plan.sandboxes}

    def create_run_sandbox(
        self,
        connection: Connection,
        plan: Any,
        spec: Any,
        secrets: Mapping[str, str],
        source: Path,
        **options: Any,
    ) -> RunningSandbox:
        self.request = {"spec": spec, "secrets": dict(secrets), **options}
        self.request["files"] = sorted(p.name for p in source.rglob("*") if p.is_file())
        self.on_create(options)
        self.on_source(source)
        self.effects.add("create sandbox")
        return self.sandbox

    def create_ahead(
        self, connection: Connection, plan: Any, specs: Any, secrets: Any, source: Path
    ) -> None:
        names = [spec.tags["modalrun-step"] for spec in specs]
        self.effects.add(f"create {' and '.join(names)} ahead")
        self.ahead = secrets

    def run_sandbox(self, connection: Connection, run_id: str, metadata: Any) -> RunningSandbox:
        """Return the run sandbox that is about to end."""
        self.effects.add(f"wait {metadata.sandbox_id}")
        self.existing = None
        ended = FakeSandbox(metadata.sandbox_id)
        ended.finish(0)
        return ended

    def find_running(self, connection: Connection, plan: Any, spec: Any) -> str | None:
        return self.existing

    def find_last(self, connection: Connection, plan: Any, spec: Any) -> str | None:
        return self.last if plan.settings.modal_environment == self.last_in else None

    def terminate(self, connection: Connection, plan: Any, spec: Any) -> None:
        self.effects.add(f"terminate {spec.name}")

    def sandboxes_of(self, *_: Any, **__: Any) -> SandboxGroup:
        return self.sandboxes

    def app_id(self, connection: Connection, name: str, environment: str | None) -> str | None:
        self.apps.append(environment)
        return self.app

    def log_streams(self, connection: Connection, run_id: str) -> Any:
        return self.streams

    def sandbox_state(self, run_id: str, metadata: Any, connect: Callable[[], Connection]) -> Any:
        self.effects.add("ask Modal")
        return self.state
