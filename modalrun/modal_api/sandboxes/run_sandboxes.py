"""Create the run sandbox of a run, and find the sandboxes that other processes created.

The functions raise the errors of `modalrun.modal_api.errors.translated`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modalrun.errors import (
    ConflictError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
    UnknownOutcomeError,
)
from modalrun.localmodal import launcher
from modalrun.modal_api import mounts
from modalrun.modal_api.client import Connection, ForeignSandboxError
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sandboxes.capacity import CapacitySearch, sleep
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.modal_api.sandboxes.sandbox_arguments import SandboxArguments
from modalrun.modal_api.sdk_internals import exit_of, has_place
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.records import App
from modalrun.run.run_plan import RunPlan, RunSettings, sandbox_name
from modalrun.run.sandbox_exit import ExitKind
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.status import SandboxState
from modalrun.run.tags import TAG_AFTER, TAG_ROLE, TAG_RUN
from modalrun.util import timeline
from modalrun.util.background import in_background
from modalrun.util.backoff import pauses

if TYPE_CHECKING:
    import modal

T = TypeVar("T")

LOOK_UP_SECONDS = 30.0
"""How long a sandbox is looked for whose creation was not answered, while Modal is away."""

APPEAR_SECONDS = 3.0
"""How long a creation that was not answered may take to show, once Modal can be asked."""

START_PAUSE, LONGEST_START_PAUSE = 1.0, 10.0
"""Seconds between two attempts to start a sandbox that Modal could not start."""

TERMINATE_SECONDS = 3.0
"""CI systems kill 7.5 to 10 s after their signal, and the end is to be recorded, too."""


def create(
    connection: Connection,
    plan: RunPlan,
    spec: SandboxSpec,
    secrets: Mapping[str, str],
    source: Path,
    *,
    given_up: threading.Event | None = None,
    on_wait: Callable[[CapacityWait | None], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    manifest: Path | None = None,
    earlier: str | None = None,
) -> RunningSandbox:
    """Create the run sandbox, or find it if an earlier call has created it.

    If Modal has no place for the preferred GPU, the next one of the list is requested.

    Args:
        connection: To Modal.
        plan: For the app and environment, and how long to wait for a place.
        spec: The sandbox, with its name; its image is built.
        secrets: Environment variables that travel as a Modal secret.
        source: The folder that is mounted at `CODE_FOLDER` in the sandbox.
        given_up: Ends the wait for a place when it is set.
        on_wait: Called when Modal has no place, with what is waited for; and with None when that
            wait is over.
        say: Called with a message when another GPU is requested.
        manifest: The file with the run manifest, of a `per_step` run.
        earlier: The id of a sandbox of this name that has ended and must not be returned.

    Raises:
        UnknownOutcomeError: Modal's answer was lost, and Modal can't be asked again. After any
            other error nothing was created.
    """
    import modal

    client = connection.client
    app = connection.app(plan.settings.app_name, plan.settings.modal_environment)
    package = connection.mounts_package
    image = mounts.run_image(connection, spec.image, source, manifest)
    if earlier is not None:
        spec = replace(spec, tags={**spec.tags, TAG_AFTER: earlier})
    sandbox_arguments = SandboxArguments(plan, secrets, client, package=package)

    async def prepare() -> None:
        # The source tree may take its time to be sent.
        with translated(), timeline.phase("send the source"):
            await image.build.aio(app)

    async def create(gpu: str | None) -> RunningSandbox:
        arguments = {"app": app, "image": image, "client": client}
        arguments |= sandbox_arguments.of(spec, gpu)
        sandbox = await _create_or_find(connection, plan, spec, arguments, earlier)
        run_id = spec.tags[TAG_RUN]
        return RunningSandbox(connection, sandbox, run_id, app_id=str(app.app_id), gpu=gpu)

    async def find() -> modal.Sandbox:
        environment = plan.settings.modal_environment
        return await modal.Sandbox.from_name.aio(
            plan.settings.app_name, str(spec.name), environment_name=environment, client=client
        )

    async def search() -> RunningSandbox:
        event = asyncio.Event()
        watching = asyncio.create_task(_set_with(given_up or threading.Event(), event))
        search = CapacitySearch(
            prepare,
            create,
            find,
            event,
            gpus=spec.resources.gpus,
            gpu_wait=spec.gpu_wait,
            longest=plan.run_sandbox.timeout,
            on_wait=on_wait,
            say=say,
        )
        try:
            return await _started(search, plan.settings, event, say)
        finally:
            watching.cancel()

    return asyncio.run(search())


def find_running(connection: Connection, plan: RunPlan, spec: SandboxSpec) -> str | None:
    """Return Modal's id of the running sandbox with the name of a spec; None if there is none."""
    try:
        return _find(connection, _app(plan), str(spec.name), ended=False).object_id
    except NotFoundError:
        return None


def find_last(connection: Connection, plan: RunPlan, spec: SandboxSpec) -> str | None:
    """Return Modal's id of the last sandbox with the name of a spec, running or ended."""
    try:
        return _find_last(connection, _app(plan), str(spec.name)).object_id
    except NotFoundError:
        return None


def terminate(connection: Connection, plan: RunPlan, spec: SandboxSpec) -> None:
    """Terminate a running sandbox, within the time that the sender of a signal leaves.

    Raises:
        NotFoundError: None of its name runs; an earlier one may have ended.
        ConnectionLostError: Modal can't be asked; it may run.
    """

    def act() -> None:
        with translated():
            _find(connection, _app(plan), str(spec.name), ended=False).terminate()

    in_background(act, TERMINATE_SECONDS)


def sandbox_state(
    run_id: str, metadata: RunMetadata, connect: Callable[[], Connection]
) -> SandboxState:
    """Return the state of a run's sandboxes; an error becomes the state "unknown".

    `connect` connects to their server, or raises a ModalrunError.
    """
    if metadata.target == "local" and not launcher.default_state_dir().exists():
        # A server that was started for the question would know no sandbox.
        return _unknown(metadata)
    connection = None
    try:
        connection = connect()
        # To attach asks for the sandbox's state too.
        end = exit_of(connection.attach(metadata.sandbox_id, run_id))
        steps: frozenset[str] = frozenset()
        if metadata.mode == "per_step":
            steps = running_steps(connection, run_id, metadata)
    except ForeignSandboxError as error:
        return SandboxState("unknown", not_found=True, problem=error.message)
    except ModalrunError as error:
        absent = connection is not None and isinstance(error, NotFoundError)
        return _unknown(metadata) if absent else SandboxState("unknown", problem=error.problem)
    if end is None:
        return SandboxState("running", step_sandboxes=steps)
    return SandboxState("ended", end, steps)


def running_steps(connection: Connection, run_id: str, metadata: RunMetadata) -> frozenset[str]:
    """Return the ids of the running step sandboxes of a run."""
    import modal

    tags = {TAG_RUN: run_id, TAG_ROLE: "step"}
    with translated():
        found = modal.Sandbox.list(app_id=metadata.app_id, tags=tags, client=connection.client)
        return frozenset(sandbox.object_id for sandbox in found)


def app_id(connection: Connection, name: str, environment: str | None) -> str | None:
    """Return Modal's id of an app; None if there is none of that name."""
    try:
        return connection.app(name, environment, create=False).app_id
    except NotFoundError:
        return None


def running_run_sandbox(connection: Connection, run_id: str) -> str | None:
    """Find the running sandbox of a run by its tags alone, when its app is not known.

    Returns:
        Modal's id; None also for one that waits for its place, and for a run that was resumed:
        only ZenML's record says for what, and which its earlier sandboxes are.
    """
    import modal

    with translated(), warnings.catch_warnings():
        # A list without an app is deprecated: it covers every sandbox of the environment.
        warnings.simplefilter("ignore")
        tags = {TAG_RUN: run_id, TAG_ROLE: "run"}
        found = modal.Sandbox.list(tags=tags, client=connection.client)
        sandbox = next(iter(found), None)
        if sandbox is None or TAG_AFTER in sandbox.get_tags() or not has_place(sandbox):
            return None
        return sandbox.object_id


def find_announced(
    connection: Connection, run_id: str, announced: Announced, *, placed: bool = False
) -> RunMetadata | None:
    """Find the run sandbox that its submission has not recorded, by its app and name.

    Returns:
        None if Modal has no such sandbox, or one that has ended without a place. With `placed` also
        if it has none yet: its submission may ask for another type of GPU.
    """
    app, environment = announced.app, announced.environment
    try:
        sandbox = _find_last(connection, App(app, environment), sandbox_name(run_id))
    except NotFoundError:
        return None
    with translated():
        if (placed or sandbox.returncode is not None) and not has_place(sandbox):
            # Its submission has given it up, and may ask for another one.
            return None
    ids = (str(app_id(connection, app, environment)), sandbox.object_id)
    return RunMetadata(announced.target, announced.mode, app, *ids, environment=environment)


def run_sandbox(connection: Connection, run_id: str, metadata: RunMetadata) -> RunningSandbox:
    """Attach to the run sandbox of a run."""
    sandbox = connection.attach(metadata.sandbox_id, run_id)
    return RunningSandbox(connection, sandbox, run_id, app_id=metadata.app_id, gpu=metadata.gpu)


async def _started(
    search: CapacitySearch[RunningSandbox],
    settings: RunSettings,
    given_up: asyncio.Event,
    say: Callable[[str], None],
) -> RunningSandbox:
    """Create a sandbox, again if Modal could not start it."""
    seconds, again = settings.wait_for_capacity, settings.infrastructure_retries
    retries = islice(pauses(START_PAUSE, LONGEST_START_PAUSE), again)
    while True:
        try:
            return await (search.once() if seconds is None else search.within(seconds))
        except ConflictError as error:
            if (pause := next(retries, None)) is None:
                raise ConflictError(
                    f"The sandbox could not start (attempts: {again + 1}): {error.problem}",
                    hint="Try again later; https://status.modal.com says how Modal is.",
                ) from error
            say(f"The run sandbox could not start: {error.problem}; trying again")
        await sleep(pause, given_up)


async def _create_or_find(
    connection: Connection,
    plan: RunPlan,
    spec: SandboxSpec,
    arguments: dict[str, Any],
    earlier: str | None,
) -> modal.Sandbox:
    import modal

    try:
        with translated(), timeline.phase("create the sandbox"):
            return await modal.Sandbox.create.aio(*spec.command, **arguments)
    except modal.exception.AlreadyExistsError:
        lost = None
    except ConnectionLostError as error:
        lost = error

    def look() -> modal.Sandbox | None:
        try:
            found = _find_last(connection, _app(plan), str(spec.name))
        except NotFoundError:
            return None
        end = exit_of(found)
        started = end is None or end.kind is not ExitKind.NOT_STARTED
        return found if started and found.object_id != earlier else None

    found = _look_up(connection, plan, spec, look)
    if found is None:
        raise lost or NotFoundError(f"Modal has no sandbox '{spec.name}'.")
    return found


def _look_up(
    connection: Connection, plan: RunPlan, spec: SandboxSpec, look: Callable[[], T | None]
) -> T | None:
    """Look for a sandbox that Modal may be creating, through lost connections.

    Raises:
        UnknownOutcomeError: Modal could not be asked.
    """
    now = time.monotonic()
    until, absent_until = now + LOOK_UP_SECONDS, None
    waits = pauses()
    while True:
        try:
            found = in_background(look, max(1.0, until - time.monotonic()))
            absent_until = absent_until or time.monotonic() + APPEAR_SECONDS
            if found is not None or time.monotonic() > absent_until:
                return found
        except ModalrunError as error:
            if time.monotonic() > until or not isinstance(error, ConnectionLostError):
                raise UnknownOutcomeError(
                    "The connection to Modal was lost while the run sandbox was being created;"
                    " whether it runs is unknown.",
                    hint=f"Look for the sandbox '{spec.name}' in the app"
                    f" '{plan.settings.app_name}' before you submit again. When Modal can be"
                    f" reached, 'modalrun status {spec.tags[TAG_RUN]}' shows whether it runs.",
                ) from error
            with contextlib.suppress(ModalrunError):
                # The local Modal server may have been started again, at another address.
                in_background(connection.reconnect, max(1.0, until - time.monotonic()))
        time.sleep(next(waits))


def _app(plan: RunPlan) -> App:
    return App(plan.settings.app_name, plan.settings.modal_environment)


def _find_last(connection: Connection, app: App, name: str) -> modal.Sandbox:
    try:
        return _find(connection, app, name, ended=True)
    except NotFoundError:
        # The V1 backend finds only running sandboxes, and only without this flag.
        return _find(connection, app, name, ended=False)


def _find(connection: Connection, app: App, name: str, *, ended: bool) -> modal.Sandbox:
    import modal

    with translated():
        return modal.Sandbox.from_name(
            app.app,
            name,
            environment_name=app.environment,
            include_terminated=ended,
            client=connection.client,
        )


async def _set_with(flag: threading.Event, event: asyncio.Event) -> None:
    """Set an event of this loop once a flag of other threads is set."""
    while not flag.is_set():
        await asyncio.sleep(0.1)
    event.set()


def _unknown(metadata: RunMetadata) -> SandboxState:
    server = (
        "the local Modal server of this user and machine"
        if metadata.target == "local"
        else "the Modal workspace that the token belongs to"
    )
    origin = f"; the run went to the workspace '{metadata.workspace}'" if metadata.workspace else ""
    problem = f"{server} knows no sandbox {metadata.sandbox_id}{origin}."
    return SandboxState("unknown", not_found=True, problem=problem)
