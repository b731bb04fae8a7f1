"""Create the run sandbox of a run, or find the one that an earlier call created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import (
    CapacityError,
    ConnectionLostError,
    NotFoundError,
    UnknownOutcomeError,
)
from modalrun.modal_api import images
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.running_sandbox import RunningSandbox
from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.planner import Plan, SandboxSpec
from modalrun.plan.resources import limited
from modalrun.run.tags import TAG_AFTER

if TYPE_CHECKING:
    import modal


def create(
    connection: Connection,
    plan: Plan,
    spec: SandboxSpec,
    secrets: Mapping[str, str],
    source: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    registry: RegistryCredentials | None = None,
    order: Path | None = None,
    earlier: str | None = None,
) -> RunningSandbox:
    """Create the run sandbox, or find it if an earlier call has created it.

    If Modal has none of the preferred GPU, the next one of the list is requested.

    Args:
        connection: To Modal.
        plan: For the app and environment.
        spec: The sandbox, with its name.
        secrets: Environment variables that travel as a Modal secret.
        source: The folder that is mounted at `CODE_FOLDER` in the sandbox.
        say: Called with a message when another GPU is requested.
        registry: For an image in a private registry.
        order: The file with the run manifest, of a `per_step` run.
        earlier: The id of a sandbox of this name that has ended and must not be returned.

    Raises:
        UsageError: Modal refuses an argument.
        AuthenticationError, NotFoundError, CapacityError, RunFailedError: The token, the
            environment, a secret or volume, capacity, or the image build; nothing was created.
        UnknownOutcomeError: Modal's answer was lost, and Modal can't be asked again.
    """
    app = connection.app(plan.app_name, plan.environment)
    builder = images.Builder(connection.client, app, plan.environment, registry)
    image = images.with_files(
        builder.build(spec.image, source),
        source,
        package=connection.target == "modal",
        order=order,
    )
    arguments = {**_arguments(connection, plan, spec, secrets), "app": app, "image": image}
    if earlier is not None:
        arguments["tags"] = {**spec.tags, TAG_AFTER: earlier}

    def create(gpu: str | None, *others: str) -> RunningSandbox:
        try:
            sandbox = _create_or_find(connection, plan, spec, {**arguments, "gpu": gpu}, earlier)
        except CapacityError as error:
            if not others or error.rate_limited:
                raise
            say(f"Modal has no {gpu} now; asking for {others[0]} instead")
            return create(*others)
        return RunningSandbox(connection, sandbox, app_id=str(app.app_id), gpu=gpu)

    return create(spec.resources.gpu, *spec.resources.other_gpus)


def find_running(connection: Connection, plan: Plan, spec: SandboxSpec) -> str | None:
    """Return Modal's id of the running sandbox with the name of a spec; None if there is none.

    Raises:
        AuthenticationError, ConnectionLostError: Modal refuses the token or can't be reached.
    """
    try:
        return _find(connection, plan, spec, include_terminated=False).object_id
    except NotFoundError:
        return None


def find_last(connection: Connection, plan: Plan, spec: SandboxSpec) -> str | None:
    """Return Modal's id of the last sandbox with the name of a spec, running or ended.

    Raises:
        AuthenticationError, ConnectionLostError: Modal refuses the token or can't be reached.
    """
    try:
        return _find_last(connection, plan, spec).object_id
    except NotFoundError:
        return None


def terminate(connection: Connection, plan: Plan, spec: SandboxSpec) -> None:
    """Terminate a sandbox that may or may not have been created.

    Raises:
        ModalrunError: It was not created, or Modal can't be asked.
    """
    with translated():
        _find_last(connection, plan, spec).terminate()


def _arguments(
    connection: Connection, plan: Plan, spec: SandboxSpec, secrets: Mapping[str, str]
) -> dict[str, Any]:
    """Return the keyword arguments of `modal.Sandbox.create`, except app, image and GPU."""
    import modal

    client, local = connection.client, connection.target == "local"
    env: dict[str, str | None] = dict(spec.env)
    if not local:
        # A driver's image is named by its id, which does not tell what variables it sets.
        env.setdefault("PYTHONPATH", images.python_path(spec.image))
    asked = spec.resources
    cpu, memory = limited(asked.cpu, asked.cpu_limit, asked.memory, asked.memory_limit)
    named = [
        modal.Secret.from_name(name, environment_name=plan.environment, client=client)
        for name in spec.secrets
    ]
    volumes = {
        path: modal.Volume.from_name(
            name, environment_name=plan.environment, create_if_missing=local, client=client
        )
        for name, path in spec.volumes.items()
    }
    return {
        "name": spec.name,
        "tags": dict(spec.tags),
        "env": env,
        # Ours last: a named secret must not replace what the run needs to reach ZenML.
        "secrets": [*named, modal.Secret.from_dict(dict(secrets))],
        "volumes": volumes,
        "timeout": spec.timeout,
        "workdir": spec.workdir,
        "cpu": cpu,
        "memory": memory,
        "cloud": spec.cloud,
        "region": list(spec.regions) or None,
        "client": client,
    }


def _create_or_find(
    connection: Connection,
    plan: Plan,
    spec: SandboxSpec,
    arguments: dict[str, Any],
    earlier: str | None,
) -> modal.Sandbox:
    import modal

    try:
        with translated():
            return modal.Sandbox.create(*spec.command, **arguments)
    except modal.exception.AlreadyExistsError:
        return _find_last(connection, plan, spec)
    except ConnectionLostError as error:
        try:
            found = _find_last(connection, plan, spec)
        except NotFoundError:
            raise error from None
        except Exception as second:
            raise UnknownOutcomeError(
                "The connection to Modal was lost while the run sandbox was being created;"
                " whether it runs is unknown.",
                hint=f"Look for the sandbox '{spec.name}' in the app '{plan.app_name}'"
                " before you submit again.",
            ) from second
        if found.object_id == earlier:
            raise
        return found


def _find_last(connection: Connection, plan: Plan, spec: SandboxSpec) -> modal.Sandbox:
    try:
        return _find(connection, plan, spec, include_terminated=True)
    except NotFoundError:
        # The V1 backend finds only running sandboxes, and only without this flag.
        return _find(connection, plan, spec, include_terminated=False)


def _find(
    connection: Connection, plan: Plan, spec: SandboxSpec, *, include_terminated: bool
) -> modal.Sandbox:
    import modal

    with translated():
        return modal.Sandbox.from_name(
            plan.app_name,
            str(spec.name),
            environment_name=plan.environment,
            include_terminated=include_terminated,
            client=connection.client,
        )
