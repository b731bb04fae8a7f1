"""Fake step sandboxes that are kept warm, for tests of `WarmSandboxes`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from modalrun.driver.graph.lease import Lease
from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
from modalrun.errors import NotFoundError
from modalrun.modal_api.sandboxes.capacity import GivenUp, Unanswered
from modalrun.run import contract
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import Event, LinesOf, OrderEnd
from modalrun.run.manifest import RunManifest
from modalrun.run.run_plan import PlannedStep, RunPlan, RunSettings
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.step_order import StepOrder
from modalrun.run.tags import TAG_ATTEMPT, TAG_STEP

KILLED = SandboxExit(ExitKind.TERMINATED, 137, "It was killed.")


def spec_of(
    step: str, *, attempt: int = 1, secrets: tuple[str, ...] = (), seconds: float = 60
) -> SandboxSpec:
    return SandboxSpec(
        ("python", "-P", "-m", "modalrun.driver.supervisor", "modalrun.driver.step"),
        "im-1",
        Resources(),
        60,
        env={
            contract.STEP: step,
            contract.TIMEOUT: str(seconds),
            contract.STEP_METADATA: '{"cpu": 1}',
            "PYTHONUNBUFFERED": "1",
        },
        secrets=secrets,
        name=f"{step}-{attempt}",
        tags={TAG_STEP: step, TAG_ATTEMPT: str(attempt)},
    )


class Box:
    """A worker that begins each step at once, and ends steps when the test says so."""

    def __init__(self, spec: SandboxSpec) -> None:
        self.id = f"sb-{spec.name}"
        self.gpu = None
        self.spec = spec
        self.tags: Mapping[str, str] = dict(spec.tags)
        self.begins = True
        self.refuses = False
        self.unreachable = False
        self.begins_unheard = False
        self.outlives_termination = False
        self.orders = []
        if contract.ORDER in spec.env:
            self.orders.append(StepOrder.from_json(spec.env[contract.ORDER]))
        self.terminated = False
        self._tell: Callable[[Event | None], object] = lambda event: None
        self._over = asyncio.Event()
        self._end = KILLED

    @property
    def step(self) -> str:
        return self.tags[TAG_STEP]

    async def listen(self, tell: Callable[[Event | None], object]) -> None:
        self._tell = tell
        await self._over.wait()
        if self.begins_unheard:
            await asyncio.sleep(0.02)
            self.begin()

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        if self.unreachable:
            await self._over.wait()
        self.tags = tags

    async def write(self, text: str) -> None:
        if self.refuses:
            raise NotFoundError("closed")
        self.orders.append(StepOrder.from_json(text))
        if self.begins:
            self.begin()

    def begin(self) -> None:
        self._tell(LinesOf(self.orders[-1].env[contract.STEP], self.orders[-1].attempt))

    def tell(self, event: Event) -> None:
        self._tell(event)

    async def end_step(self, code: int = 0) -> None:
        await asyncio.sleep(0)
        self._tell(OrderEnd(self.orders[-1].secret, code))
        await asyncio.sleep(0.01)

    async def die(self, end: SandboxExit = KILLED) -> None:
        self._end = end
        self._over.set()
        await asyncio.sleep(0.01)

    async def ended(self) -> SandboxExit:
        await self._over.wait()
        return self._end

    async def terminate(self) -> None:
        self.terminated = True
        if not self.outlives_termination:
            await self.die()


class Boxes:
    """Create workers as `StepSandboxes` does."""

    def __init__(self) -> None:
        self.created: list[Box] = []
        self.left: list[Box] = []
        self.full = False
        self.answers = True
        self.awaited: list[str] = []
        self.ahead: Box | None = None

    async def create(self, spec: SandboxSpec, given_up: asyncio.Event, **more: Any) -> Box:
        await asyncio.sleep(0)
        while self.full and not given_up.is_set():
            more["on_wait"](CapacityWait("T4", None, 0.0))
            await asyncio.sleep(0.01)
        if given_up.is_set():
            raise GivenUp if self.answers else Unanswered
        # As one is found whose name is taken.
        self.created.append(self.ahead or Box(spec))
        return self.created[-1]

    async def end_late(self, name: str) -> None:
        self.awaited.append(name)

    async def named(self, name: str) -> Box | None:
        return self.ahead if self.ahead is not None and self.ahead.spec.name == name else None

    async def running(self, names: Any = ()) -> list[Box]:
        return [box for box in [*self.created, *self.left] if not box.terminated]

    async def terminate_all(self) -> None:
        for box in self.created:
            await box.terminate()


class Bench:
    """A pool with fakes beneath it."""

    def __init__(self, seconds: int = 30, ahead: tuple[str, ...] = ()) -> None:
        self.boxes = Boxes()
        settings = RunSettings(app_name="a", mode="per_step", keep_warm=seconds)
        run_sandbox = SandboxSpec(("python",), "im-0", Resources(), 900)
        steps = tuple(PlannedStep(name, sandbox=spec_of(name)) for name in ahead)
        self.plan = RunPlan("local", "p", settings, run_sandbox, steps)
        manifest = RunManifest("run", self.plan, "fail_fast", ahead=ahead)
        self.pool = WarmSandboxes(manifest, cast("Any", self.boxes))

    async def get(self, step: str, **more: Any) -> Lease:
        lease = await self.pool.create(spec_of(step, **more), asyncio.Event())
        assert isinstance(lease, Lease)
        await asyncio.sleep(0)
        return lease


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def play(scene: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 10))
