"""The step sandboxes of one run: created, found again, waited for and ended, all side by side.

For one event loop. Written against the Modal SDK 1.6.4.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError, NotFoundError
from modalrun.modal_api import images, sdk_internals
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sandbox_arguments import SandboxArguments
from modalrun.run import sandbox_exit
from modalrun.run.manifest import RunManifest
from modalrun.run.sandbox_exit import ModalStatus, SandboxExit, read_exit
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import TAG_ATTEMPT, TAG_EARLY, TAG_RECORD, TAG_ROLE, TAG_RUN, TAG_STEP
from modalrun.util.backoff import pauses
from modalrun.util.rate_limit import Pace

if TYPE_CHECKING:
    import modal


SHARE = 50
"""Sandboxes that wait on one connection: HTTP/2 servers allow about a hundred calls at a time."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two tries while Modal can't be asked, growing."""


class GivenUp(Exception):
    """The sandbox is not wanted any more; nothing was created."""


class Refused(Exception):
    """Modal doesn't take what is asked for, and asking again would not change that."""


class _Line:
    """One connection, and how many sandboxes are waited for on it."""

    def __init__(self, client: modal.Client) -> None:
        self.client = client
        self.load = 0


class StepSandboxes:
    """The step sandboxes of one run."""

    def __init__(
        self,
        manifest: RunManifest,
        variables: Mapping[str, str],
        source: Path,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            manifest: The run.
            variables: Environment variables that travel to the steps as a Modal secret.
            source: The folder with the source tree.
            say: Is told when something takes longer than it should.
        """
        self._run_id = manifest.run_id
        self._plan = manifest.plan
        self._settings = manifest.plan.settings
        self._source = source
        self._say = say
        self._secret_values = dict(variables)
        self._pace = Pace(self._settings.creation_rate)
        self._lines: list[_Line] = []
        self._connecting = asyncio.Lock()
        self._images: dict[str, asyncio.Task[modal.Image]] = {}
        self._app: modal.App
        self._arguments: SandboxArguments

    async def open(self) -> None:
        """Connect; tried again for as long as it takes.

        Raises:
            ModalrunError: The token is not accepted.
        """
        import modal

        async def look_up() -> modal.App:
            line = await self._line()
            return await modal.App.lookup.aio(
                self._settings.app_name,
                create_if_missing=True,
                environment_name=self._settings.modal_environment,
                client=line.client,
            )

        self._app = await self._asked(look_up)
        self._arguments = SandboxArguments(self._plan, self._secret_values)

    async def create(
        self,
        spec: SandboxSpec,
        given_up: asyncio.Event,
        *,
        no_room: Callable[[], None] | None = None,
    ) -> StepSandbox:
        """Create a sandbox, or find it if an earlier try has created it.

        While Modal has no room, limits the rate or can't be reached, it is asked again.

        Args:
            spec: The sandbox, with its name and tags.
            given_up: When this is set, no further try is made.
            no_room: Is called when Modal has none for it.

        Raises:
            GivenUp: It is set.
            Refused: Modal doesn't take what is asked for.
        """
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            for gpu in spec.resources.gpus or (None,):
                await _sleep(self._pace.wait(asyncio.get_running_loop().time()), given_up)
                try:
                    return await self._create_or_find(spec, gpu)
                except CapacityError as error:
                    self._say(f"{spec.name}: {error.message}")
                    if error.rate_limited:
                        break
                    if no_room is not None:
                        no_room()
                except ConnectionLostError as error:
                    self._say(f"{spec.name}: {error.message}")
                    break
                except ModalrunError as error:
                    raise Refused(error.message) from error
            await _sleep(next(waits), given_up)

    async def running(self) -> list[StepSandbox]:
        """The step sandboxes of the run that are running now, whoever created them."""
        members: list[StepSandbox] = await self._asked(self._running)
        return members

    async def terminate_all(self) -> None:
        """End every step sandbox of the run, also those that are still being created."""
        for pause in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0):
            members = await self.running()
            if not members:
                return
            await asyncio.gather(*(member.terminate() for member in members))
            await asyncio.sleep(pause)

    async def _running(self) -> list[StepSandbox]:
        import modal

        line = await self._line()
        tags = {TAG_RUN: self._run_id, TAG_ROLE: "step"}
        listed = modal.Sandbox.list.aio(app_id=str(self._app.app_id), tags=tags, client=line.client)
        found = [sandbox async for sandbox in listed]
        held = await asyncio.gather(*(_tags(sandbox) for sandbox in found))
        return [
            StepSandbox(self, line, sandbox, tags=tags)
            for sandbox, tags in zip(found, held, strict=True)
            if tags is not None
        ]

    async def _create_or_find(self, spec: SandboxSpec, gpu: str | None) -> StepSandbox:
        line = await self._line()
        # From now on: many are created at once, and only then waited for.
        line.load += 1
        try:
            sandbox = await self._created_or_found(spec, gpu, line)
        except BaseException:
            line.load -= 1
            raise
        return StepSandbox(self, line, sandbox, gpu=gpu, tags=spec.tags, counted=True)

    async def _created_or_found(
        self, spec: SandboxSpec, gpu: str | None, line: _Line
    ) -> modal.Sandbox:
        import modal

        image = await self._image(spec.image)
        try:
            with translated():
                return await modal.Sandbox.create.aio(
                    *spec.command,
                    app=self._app,
                    image=image,
                    client=line.client,
                    **self._arguments.of(spec, gpu),
                )
        except modal.exception.AlreadyExistsError as error:
            # It may end before it is found; then its name is free again.
            lost = ConnectionLostError(f"The sandbox of this name can't be found: {error}")
        except ConnectionLostError as error:
            # Whether it was created is unknown: its name tells.
            lost = error
        try:
            found: modal.Sandbox = await self._asked(lambda: self._find(str(spec.name)))
        except NotFoundError:
            raise lost from None
        return found

    async def _find(self, name: str) -> modal.Sandbox:
        import modal

        async def find(*, include_terminated: bool) -> modal.Sandbox:
            return await modal.Sandbox.from_name.aio(
                self._settings.app_name,
                name,
                environment_name=self._settings.modal_environment,
                include_terminated=include_terminated,
                client=self._lines[0].client,
            )

        try:
            # Only the second backend can also find a sandbox that has ended already.
            return await find(include_terminated=True)
        except modal.exception.NotFoundError:
            return await find(include_terminated=False)

    async def _image(self, image_id: str) -> modal.Image:
        """An image with the source tree, which is read and sent once, however many ask."""
        if image_id not in self._images:
            self._images[image_id] = asyncio.create_task(self._prepare_image(image_id))
        try:
            return await asyncio.shield(self._images[image_id])
        except Exception:
            self._images.pop(image_id, None)
            raise

    async def _prepare_image(self, image_id: str) -> modal.Image:
        import modal

        bare = modal.Image.from_id(image_id, client=self._lines[0].client)
        image = images.with_files(bare, self._source, package=self._plan.target == "modal")
        with translated():
            await image.build.aio(self._app)
        return image

    async def _line(self) -> _Line:
        """The connection for one more sandbox."""
        while (free := next((line for line in self._lines if line.load < SHARE), None)) is None:
            if self._connecting.locked():
                # Somebody else makes one, which will do for many.
                async with self._connecting:
                    continue
            async with self._connecting:
                with translated():
                    self._lines.append(_Line(await _connect()))
        return free

    async def _asked(self, question: Callable[[], Any]) -> Any:
        """Modal's answer, asked for until it comes."""
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                with translated():
                    return await question()
            except (ConnectionLostError, CapacityError) as error:
                self._say(f"{error.message}; trying again")
            await asyncio.sleep(next(waits))


class StepSandbox:
    """One step sandbox.

    Attributes:
        id: Modal's id.
        gpu: The GPU that it was asked for in the end.
        step: The value of its tag for the step.
        attempt: Which sandbox of its step it is.
        early: Whether it was created before its step's turn.
        record: The value of its tag for the step run record; empty where it has none.
    """

    def __init__(
        self,
        fleet: StepSandboxes,
        line: _Line,
        sandbox: modal.Sandbox,
        *,
        tags: Mapping[str, str],
        gpu: str | None = None,
        counted: bool = False,
    ) -> None:
        self.id: str = sandbox.object_id
        self.gpu = gpu
        self.step = tags.get(TAG_STEP, "")
        self.attempt = int(tags.get(TAG_ATTEMPT, "1"))
        self.early = TAG_EARLY in tags
        self.record = tags.get(TAG_RECORD, "")
        self._end: asyncio.Task[SandboxExit] | None = None
        self._fleet = fleet
        self._line = line
        self._counted = counted
        self._sandbox = sandbox

    async def ended(self) -> SandboxExit:
        """Wait for its end, however often the connection is lost meanwhile."""
        if self._end is None:
            self._end = asyncio.create_task(self._wait())
        return await asyncio.shield(self._end)

    async def write(self, text: str) -> None:
        """Write to its standard input.

        Raises:
            ModalrunError: It has ended.
        """

        async def write() -> None:
            self._sandbox.stdin.write(text)
            await self._sandbox.stdin.drain.aio()

        try:
            await self._fleet._asked(write)
        except ValueError as error:
            # The SDK's word for an input that is closed (`modal/io_streams.py:801`, 1.6.4).
            raise NotFoundError(f"{self.id} reads nothing any more: {error}") from error

    async def terminate(self) -> None:
        """End it now; nothing happens if it has ended."""
        with contextlib.suppress(NotFoundError):
            await self._fleet._asked(self._sandbox.terminate.aio)

    async def _wait(self) -> SandboxExit:
        if not self._counted:
            self._line.load += 1
        try:
            return await self._ask_for_end()
        finally:
            self._line.load -= 1

    async def _ask_for_end(self) -> SandboxExit:
        import modal

        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                with translated():
                    await self._sandbox.wait.aio(raise_on_termination=False)
                return self._read_exit()
            except modal.exception.SandboxTimeoutError:
                return read_exit(124, ModalStatus.TIMEOUT)
            except NotFoundError:
                return sandbox_exit.LOST
            except (ModalrunError, modal.exception.Error) as error:
                # Whatever it is, not to be able to ask is not an end. The deadline is the bound.
                self._fleet._say(f"{self.id}: {error}; asking again")
            await asyncio.sleep(next(waits))

    def _read_exit(self) -> SandboxExit:
        code = self._sandbox.returncode
        # The SDK has waited for the end, so there is a code.
        assert code is not None
        # How it ended stands only in what is private; the code alone will do.
        result = sdk_internals.result(self._sandbox)
        if result is None:
            return read_exit(code, None, "")
        return read_exit(code, result.status, result.exception)


async def _tags(sandbox: modal.Sandbox) -> dict[str, str] | None:
    """The tags of a sandbox that was listed; None where it has ended since."""
    import modal

    try:
        return await sandbox.get_tags.aio()
    except modal.exception.NotFoundError:
        return None


async def _connect() -> modal.Client:
    import modal

    # In a sandbox of Modal's the SDK would ignore a token of its configuration.
    return await modal.Client.from_credentials.aio(
        os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"]
    )


async def _sleep(seconds: float, given_up: asyncio.Event) -> None:
    """Sleep, unless the sandbox isn't wanted any more."""
    if seconds > 0 and not given_up.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(given_up.wait(), seconds)
    if given_up.is_set():
        raise GivenUp
