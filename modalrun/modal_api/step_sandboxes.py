"""Create, find, await and terminate the step sandboxes of one run, many at a time.

For one event loop. Written against the Modal SDK 1.6.4.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.errors import (
    ConflictError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
    UnknownOutcomeError,
)
from modalrun.modal_api import images, sandbox_events, sdk_internals
from modalrun.modal_api.capacity import CapacitySearch, GivenUp, sleep
from modalrun.modal_api.connection_pool import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    ConnectionPool,
    PooledConnection,
)
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sandbox_arguments import SandboxArguments
from modalrun.run import sandbox_exit
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.contract import EXIT_TIMED_OUT
from modalrun.run.events import Event
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import log_line
from modalrun.run.sandbox_exit import ModalStatus, SandboxExit, read_exit
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import TAG_ATTEMPT, TAG_RECORD, TAG_ROLE, TAG_RUN, TAG_STEP
from modalrun.util.backoff import pauses
from modalrun.util.rate_limit import Pace

if TYPE_CHECKING:
    import modal


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
        self._arguments = SandboxArguments(self._plan, self._variables, package=images.is_mounted())

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
            Refused: Modal refuses the request.
            ConflictError: Modal could not start the sandbox.
        """

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
                return await search.within(math.inf)
            except UnknownOutcomeError:
                # It sees itself that the run has been stopped.
                raise GivenUp from None
            except ConnectionLostError as error:
                self._log(f"{spec.name}: {error.message}")
            except ConflictError:
                raise
            except ModalrunError as error:
                raise Refused(error.message) from error
            await sleep(next(waits), given_up)

    async def running(self) -> list[StepSandbox]:
        """Return the running step sandboxes of the run, including those of an earlier driver."""
        return await self._pool.call(self._running)

    async def terminate_all(self) -> None:
        """Terminate every step sandbox of the run, including those that are being created."""
        for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
            sandboxes = await self.running()
            if not sandboxes:
                return
            await asyncio.gather(*(sandbox.terminate() for sandbox in sandboxes))
            await asyncio.sleep(pause)

    async def _running(self) -> list[StepSandbox]:
        import modal

        connection = await self._pool.get()
        listed = modal.Sandbox.list.aio(
            app_id=str(self._app.app_id),
            tags={TAG_RUN: self._run_id, TAG_ROLE: "step"},
            client=connection.client,
        )
        found = [sandbox async for sandbox in listed]
        tags = await asyncio.gather(*(_tags(sandbox) for sandbox in found))
        return [
            StepSandbox(self._pool, connection, sandbox, tags=tags)
            for sandbox, tags in zip(found, tags, strict=True)
            if tags is not None
        ]

    async def _create_or_find(self, spec: SandboxSpec, gpu: str | None) -> StepSandbox:
        connection = await self._pool.get()
        # Counted from now on: many are created at a time, and awaited only later.
        connection.load += 1
        try:
            sandbox = await self._create_sandbox(spec, gpu, connection.client)
        except BaseException:
            connection.load -= 1
            raise
        return StepSandbox(self._pool, connection, sandbox, tags=spec.tags, gpu=gpu, counted=True)

    async def _create_sandbox(
        self, spec: SandboxSpec, gpu: str | None, client: modal.Client
    ) -> modal.Sandbox:
        import modal

        image = await self._image(spec.image, client)
        try:
            with translated():
                return await modal.Sandbox.create.aio(
                    *spec.command,
                    app=self._app,
                    image=image,
                    client=client,
                    **self._arguments.of(spec, gpu),
                )
        except modal.exception.AlreadyExistsError as error:
            # It may end before it is found; then its name is free again.
            lost = ConnectionLostError(f"The sandbox of this name can't be found: {error}")
        except ConnectionLostError as error:
            # Only a look for its name shows whether it was created.
            lost = error
        try:
            return await self._pool.call(lambda: self._find(str(spec.name), client))
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
        image = images.with_files(bare, self._source, package=images.is_mounted())
        with translated():
            await image.build.aio(self._app)
        return image


class StepSandbox:
    """One step sandbox.

    Attributes:
        id: Modal's id.
        tags: Its tags.
        gpu: The GPU that was requested in the end; None for a sandbox that was found.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        connection: PooledConnection,
        sandbox: modal.Sandbox,
        *,
        tags: Mapping[str, str],
        gpu: str | None = None,
        counted: bool = False,
    ) -> None:
        self.id: str = sandbox.object_id
        self.gpu = gpu
        self.tags = tags
        self._pool = pool
        self._connection = connection
        self._sandbox = sandbox
        self._counted = counted
        self._exit: asyncio.Task[SandboxExit] | None = None

    @property
    def step(self) -> str:
        """The value of its tag for the step."""
        return self.tags.get(TAG_STEP, "")

    @property
    def attempt(self) -> int:
        """The number of this sandbox among those of its step, from 1."""
        return int(self.tags.get(TAG_ATTEMPT, "1"))

    @property
    def record(self) -> str:
        """The value of its tag for the step run record; empty if it has none."""
        return self.tags.get(TAG_RECORD, "")

    async def ended(self) -> SandboxExit:
        """Wait for its end, through any number of lost connections."""
        if self._exit is None:
            self._exit = asyncio.create_task(self._wait())
        return await asyncio.shield(self._exit)

    async def write(self, text: str) -> None:
        """Write to its standard input; after a lost connection, the text may come twice.

        Raises:
            ModalrunError: It has ended.
        """

        async def write() -> None:
            self._sandbox.stdin.write(text)
            await self._sandbox.stdin.drain.aio()

        try:
            await self._pool.call(write)
        except ValueError as error:
            # The SDK raises this for a closed input (`modal/io_streams.py:801`, 1.6.4).
            raise NotFoundError(f"{self.id} does not read its input any more: {error}") from error

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """Replace its tags.

        Raises:
            ModalrunError: It has ended, or Modal refuses them.
        """
        await self._pool.call(lambda: self._sandbox.set_tags.aio(dict(tags)))
        self.tags = tags

    async def listen(self, on_event: Callable[[Event | None], object]) -> None:
        """Call `on_event` with each event on its standard output, until the output ends.

        It is called with None where Modal has no more a part of the output.
        """
        # Another call that waits, beside that for its end.
        self._connection.load += 1
        try:
            await sandbox_events.listen(self._sandbox, on_event, self._pool.log)
        finally:
            self._connection.load -= 1

    async def terminate(self) -> None:
        """Terminate it; do nothing if it has ended."""
        with contextlib.suppress(NotFoundError):
            await self._pool.call(self._sandbox.terminate.aio)

    async def _wait(self) -> SandboxExit:
        import modal

        if not self._counted:
            self._connection.load += 1
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            while True:
                try:
                    with translated():
                        await self._sandbox.wait.aio(raise_on_termination=False)
                    # The SDK has waited for the end, so there is one.
                    if (end := sdk_internals.exit_of(self._sandbox)) is not None:
                        return end
                except modal.exception.SandboxTimeoutError:
                    return read_exit(EXIT_TIMED_OUT, ModalStatus.TIMEOUT)
                except NotFoundError:
                    return sandbox_exit.LOST
                except (ModalrunError, modal.exception.Error) as error:
                    # No error of a question is an end. The step's deadline is the bound.
                    self._pool.log(f"{self.id}: {error}; asking again")
                await asyncio.sleep(next(waits))
        finally:
            self._connection.load -= 1


async def _tags(sandbox: modal.Sandbox) -> dict[str, str] | None:
    """Return the tags of a sandbox that was listed; None if it has ended since."""
    import modal

    try:
        return await sandbox.get_tags.aio()
    except modal.exception.NotFoundError:
        return None
