"""Create, find, await and terminate the step sandboxes of one run, many at a time.

For one event loop. Written against the Modal SDK 1.6.4.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import (
    ConflictError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
    UnknownOutcomeError,
)
from modalrun.modal_api import mounts
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sandboxes.capacity import CapacitySearch, Unanswered, sleep
from modalrun.modal_api.sandboxes.connection_pool import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    ConnectionPool,
)
from modalrun.modal_api.sandboxes.sandbox_arguments import SandboxArguments
from modalrun.modal_api.sandboxes.step_sandbox import StepSandbox
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import log_line
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import TAG_ROLE, TAG_RUN, TAG_STEP, step_sandbox_name
from modalrun.util.backoff import pauses
from modalrun.util.rate_limit import Pace

if TYPE_CHECKING:
    import modal

    from modalrun.modal_api.client import Connection

AHEAD_SECONDS = 10.0
"""How long the submission may take to create the sandboxes of the first steps."""

_LOOK_UPS = 16
"""How many sandboxes are looked up by name at the same time."""


class Refused(Exception):
    """Modal refuses the request, and would refuse it again."""


class StepSandboxes:
    """The step sandboxes of one run."""

    def __init__(
        self,
        manifest: RunManifest,
        source: Path | None = None,
        log: Callable[[str], None] = log_line,
        pool: ConnectionPool | None = None,
    ) -> None:
        """
        Args:
            manifest: The run; its variables are in the environment.
            source: The folder with the source tree; None for the current one.
            log: Called with a message when Modal has no capacity or can't be reached.
            pool: The connections; without it, made as they are needed.
        """
        self._run_id = manifest.run_id
        self._plan = manifest.plan
        self._variables = {name: os.environ[name] for name in manifest.variables}
        self._source = source or Path.cwd()
        self._log = log
        self._pace = Pace(manifest.plan.settings.creation_rate)
        self._pool = pool or ConnectionPool(log)
        # By name; None while it is being created.
        self._requested: dict[str, StepSandbox | None] = {}
        self._looking = asyncio.Semaphore(_LOOK_UPS)
        self._images: dict[str, asyncio.Task[modal.Image]] = {}
        self._app: modal.App
        self._arguments: SandboxArguments

    async def open(self) -> None:
        """Connect, and try again as long as Modal can't be reached.

        Raises:
            ModalrunError: Modal refuses the token.
        """
        import modal

        async def look_up() -> modal.App:
            return await modal.App.lookup.aio(
                self._plan.settings.app_name,
                create_if_missing=True,
                environment_name=self._plan.settings.modal_environment,
                client=(await self._pool.get()).client,
            )

        self._app = await self._pool.call(look_up)
        self._arguments = SandboxArguments(self._plan, self._variables, package=mounts.is_mounted())

    async def create(
        self,
        spec: SandboxSpec,
        given_up: asyncio.Event,
        *,
        on_wait: Callable[[CapacityWait | None], None] = lambda _: None,
    ) -> StepSandbox:
        """Create a sandbox, or find it if an earlier call has created it.

        The request is repeated while Modal has no capacity, limits the rate or can't be reached.

        Args:
            spec: The sandbox, with its name and tags.
            given_up: Once set, no further attempt is made, and no place is waited for.
            on_wait: Called when Modal has no place for it, with what is waited for; and with None
                when that wait is over.

        Raises:
            GivenUp: `given_up` is set.
            Unanswered: So it is, and Modal has not answered yet.
            Refused: Modal refuses the request.
            ConflictError: Modal could not start the sandbox.
        """

        name = str(spec.name)
        self._requested[name] = None

        async def prepare() -> None:
            await sleep(self._pace.wait(asyncio.get_running_loop().time()), given_up)
            # The source tree may take its time to be sent.
            await self._image(spec.image, (await self._pool.get()).client)

        async def find() -> modal.Sandbox:
            return await self._find(str(spec.name), (await self._pool.get()).client, running=True)

        search = CapacitySearch(
            prepare,
            lambda gpu: self._create_or_find(spec, gpu),
            find,
            given_up,
            gpus=spec.resources.gpus,
            gpu_wait=spec.gpu_wait,
            longest=self._plan.run_sandbox.timeout,
            on_wait=on_wait,
            say=lambda text: self._log(f"Step `{spec.tags[TAG_STEP]}`: {text}"),
        )
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                self._requested[name] = sandbox = await search.within(math.inf)
                return sandbox
            except UnknownOutcomeError:
                raise Unanswered from None
            except ConnectionLostError as error:
                self._log(f"{spec.name}: {error.message}")
            except ConflictError:
                raise
            except ModalrunError as error:
                raise Refused(error.message) from error
            await sleep(next(waits), given_up)

    async def running(self, names: Iterable[str] = ()) -> list[StepSandbox]:
        """Return the running step sandboxes of the run, including those of an earlier driver.

        `names` are looked up in addition to Modal's list, which may lag.
        """
        return await self._pool.call(lambda: self._running(names))

    async def named(self, name: str) -> StepSandbox | None:
        """Return the sandbox of a name, running or ended; None if there is none."""
        import modal

        async def find() -> StepSandbox | None:
            connection = await self._pool.get()
            try:
                sandbox = await self._find(name, connection.client)
                tags = await sandbox.get_tags.aio()
            except modal.exception.NotFoundError:
                return None
            return StepSandbox(self._pool, connection, sandbox, tags=tags)

        self._requested[name] = found = await self._pool.call(find)
        return found

    async def end_late(self, name: str) -> None:
        """Terminate the sandbox of a name as soon as it exists; look for it for half a minute."""

        async def end() -> bool:
            sandbox = await self._named(name, (await self._pool.get()).client)
            if sandbox is not None:
                await sandbox.terminate.aio()
            return sandbox is not None

        for pause in (1.0, 2.0, 4.0, 8.0, 15.0):
            if await self._pool.call(end):
                return
            await asyncio.sleep(pause)

    async def terminate_all(self) -> None:
        """Terminate every step sandbox of the run, including those that are being created."""
        names = [name for name, box in self._requested.items() if box is None or not box.is_over]
        if not self._requested:
            # This process has created none; a driver that has died may have.
            steps = [step.name for step in self._plan.steps]
            names = [step_sandbox_name(self._run_id, step, 1) for step in steps]
        ended: set[str] = set()
        for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
            sandboxes = [box for box in await self.running(names) if box.id not in ended]
            if not sandboxes:
                return
            await asyncio.gather(*(sandbox.terminate() for sandbox in sandboxes))
            await asyncio.sleep(pause)
            # The list may show for longer what has ended.
            ended |= {box.id for box in sandboxes if await box.has_ended()}

    async def _running(self, names: Iterable[str]) -> list[StepSandbox]:
        import modal

        connection = await self._pool.get()
        listed = modal.Sandbox.list.aio(
            app_id=str(self._app.app_id),
            tags={TAG_RUN: self._run_id, TAG_ROLE: "step"},
            client=connection.client,
        )
        found = [sandbox async for sandbox in listed]
        known = {sandbox.object_id for sandbox in found}
        named = await asyncio.gather(*(self._named(name, connection.client) for name in names))
        found += [box for box in named if box is not None and box.object_id not in known]
        tags = await asyncio.gather(*(_tags(sandbox) for sandbox in found))
        return [
            StepSandbox(self._pool, connection, sandbox, tags=tags)
            for sandbox, tags in zip(found, tags, strict=True)
            if tags is not None and tags.get(TAG_RUN) == self._run_id
        ]

    async def _named(self, name: str, client: modal.Client) -> modal.Sandbox | None:
        """Find a running sandbox by its name."""
        import modal

        async with self._looking:
            try:
                return await self._find(name, client, running=True)
            except modal.exception.NotFoundError:
                return None

    async def _create_or_find(self, spec: SandboxSpec, gpu: str | None) -> StepSandbox:
        connection = await self._pool.get()
        # Counted from now on: many are created at a time, and awaited only later.
        connection.load += 1
        try:
            sandbox, tags = await self._create_sandbox(spec, gpu, connection.client)
        except BaseException:
            connection.load -= 1
            raise
        return StepSandbox(self._pool, connection, sandbox, tags=tags, gpu=gpu, counted=True)

    async def _create_sandbox(
        self, spec: SandboxSpec, gpu: str | None, client: modal.Client
    ) -> tuple[modal.Sandbox, Mapping[str, str]]:
        """Create a sandbox, or find it; return it and its tags."""
        import modal

        image = await self._image(spec.image, client)
        try:
            with translated():
                sandbox = await modal.Sandbox.create.aio(
                    *spec.command,
                    app=self._app,
                    image=image,
                    client=client,
                    **self._arguments.of(spec, gpu),
                )
                return sandbox, spec.tags
        except modal.exception.AlreadyExistsError as error:
            # It may end before it is found; then its name is free again.
            lost = ConnectionLostError(f"The sandbox of this name can't be found: {error}")
        except ConnectionLostError as error:
            # Only a look for its name shows whether it was created.
            lost = error
        try:
            sandbox = await self._pool.call(lambda: self._find(str(spec.name), client))
            # The submission may have created it, with an order of its own.
            return sandbox, await self._pool.call(sandbox.get_tags.aio)
        except NotFoundError:
            raise lost from None

    async def _find(
        self, name: str, client: modal.Client, *, running: bool = False
    ) -> modal.Sandbox:
        import modal

        settings = self._plan.settings
        find = functools.partial(
            modal.Sandbox.from_name.aio,
            settings.app_name,
            name,
            environment_name=settings.modal_environment,
            client=client,
        )
        if not running:
            with contextlib.suppress(modal.exception.NotFoundError):
                return await find(include_terminated=True)
        # The V1 backend finds only running sandboxes, and only without this flag.
        return await find()

    async def _image(self, image_id: str, client: modal.Client) -> modal.Image:
        """Return an image with the source tree, which is read and sent once for all callers."""
        if image_id not in self._images:
            self._images[image_id] = asyncio.create_task(self._mount_source(image_id, client))
        try:
            return await asyncio.shield(self._images[image_id])
        except Exception:
            self._images.pop(image_id, None)
            raise

    async def _mount_source(self, image_id: str, client: modal.Client) -> modal.Image:
        import modal

        bare = modal.Image.from_id(image_id, client=client)
        image = mounts.with_files(bare, self._source, package=mounts.is_mounted())
        with translated():
            await image.build.aio(self._app)
        return image


def create_ahead(
    connection: Connection,
    plan: RunPlan,
    specs: Sequence[SandboxSpec],
    secrets: Mapping[str, str],
    source: Path,
) -> None:
    """Create the sandboxes of first steps, for a driver that finds or creates them by their names.

    Args:
        connection: To Modal.
        plan: The run.
        specs: The sandboxes, without a GPU; their images are built.
        secrets: Environment variables that travel as a Modal secret.
        source: The source tree.
    """
    import modal

    app = connection.app(plan.settings.app_name, plan.settings.modal_environment)
    arguments = SandboxArguments(
        plan, secrets, connection.client, package=connection.mounts_package
    )
    images = {spec.image: mounts.run_image(connection, spec.image, source) for spec in specs}
    shared: dict[str, Any] = {"app": app, "client": connection.client}

    async def create() -> None:
        creations = [
            modal.Sandbox.create.aio(
                *spec.command, image=images[spec.image], **shared, **arguments.of(spec, None)
            )
            for spec in specs
        ]
        await asyncio.wait_for(asyncio.gather(*creations, return_exceptions=True), AHEAD_SECONDS)

    asyncio.run(create())


async def _tags(sandbox: modal.Sandbox) -> dict[str, str] | None:
    """Return the tags of a sandbox that was listed; None if it has ended since."""
    import modal

    try:
        return await sandbox.get_tags.aio()
    except modal.exception.NotFoundError:
        return None
