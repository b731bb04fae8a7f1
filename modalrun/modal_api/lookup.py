"""What Modal knows of the sandboxes of a run that somebody else has started."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.localmodal import launcher
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.running_sandbox import RunningSandbox
from modalrun.run.metadata import RunMetadata
from modalrun.run.sandbox_exit import read_exit
from modalrun.run.status import SandboxState
from modalrun.run.tags import TAG_AFTER, TAG_ROLE, TAG_RUN


def sandbox_state(
    run_id: str, metadata: RunMetadata, connect: Callable[[], Connection]
) -> SandboxState:
    """Whether the sandboxes of a run run, and how the run sandbox ended; never an error.

    Args:
        run_id: ZenML's run id.
        metadata: What is recorded of the run's sandboxes.
        connect: Connects to where they are, or raises a ModalrunError.
    """
    if metadata.target == "local" and not launcher.default_state_dir().exists():
        # To start a server only to hear that it knows nothing would be no use.
        return _unknown(metadata)
    try:
        connection = connect()
        # This asks for the sandbox's state too, so there is no second call.
        code = connection.attach(metadata.sandbox_id).returncode
        steps: frozenset[str] = frozenset()
        if metadata.mode == "per_step":
            steps = running_steps(connection, run_id, metadata)
    except NotFoundError:
        return _unknown(metadata)
    except ModalrunError as error:
        return SandboxState("unknown", problem=error.problem)
    if code is None:
        return SandboxState("running", step_sandboxes=steps)
    return SandboxState("ended", read_exit(code), steps)


def running_steps(connection: Connection, run_id: str, metadata: RunMetadata) -> frozenset[str]:
    """The ids of the step sandboxes of a run that run now.

    Raises:
        AuthenticationError, NotFoundError, ConnectionLostError: Modal refuses, doesn't know the
            app any more, or can't be reached.
    """
    import modal

    tags = {TAG_RUN: run_id, TAG_ROLE: "step"}
    with translated():
        found = modal.Sandbox.list(app_id=metadata.app_id, tags=tags, client=connection.client)
        return frozenset(sandbox.object_id for sandbox in found)


def app_id(connection: Connection, name: str, environment: str | None) -> str | None:
    """Modal's id of an app; None where there is none of that name.

    Raises:
        AuthenticationError, ConnectionLostError: Modal refuses or can't be reached.
    """
    import modal

    try:
        with translated():
            app = modal.App.lookup(name, environment_name=environment, client=connection.client)
    except NotFoundError:
        return None
    return app.app_id


def running_run_sandbox(connection: Connection, run_id: str) -> str | None:
    """The id of a run's only sandbox if it runs, by its tags alone: in which app is not known.

    None for a run that was resumed: which sandboxes it had before, ZenML's record says.

    Raises:
        AuthenticationError, ConnectionLostError: Modal refuses or can't be reached.
    """
    import modal

    with translated(), warnings.catch_warnings():
        # Listing without an app is deprecated, since it looks at every sandbox of the environment.
        warnings.simplefilter("ignore")
        tags = {TAG_RUN: run_id, TAG_ROLE: "run"}
        found = modal.Sandbox.list(tags=tags, client=connection.client)
        sandbox = next(iter(found), None)
        if sandbox is None or TAG_AFTER in sandbox.get_tags():
            return None
        return sandbox.object_id


def run_sandbox(connection: Connection, metadata: RunMetadata) -> RunningSandbox:
    """A run sandbox, to be watched.

    Raises:
        AuthenticationError, NotFoundError, ConnectionLostError: Modal refuses, doesn't know it, or
            can't be reached.
    """
    return RunningSandbox(
        connection, connection.attach(metadata.sandbox_id), app_id=metadata.app_id, gpu=metadata.gpu
    )


def _unknown(metadata: RunMetadata) -> SandboxState:
    where = (
        "the local Modal server of this user and machine"
        if metadata.target == "local"
        else "the Modal workspace that the token belongs to"
    )
    wanted = f"; the run went to the workspace '{metadata.workspace}'" if metadata.workspace else ""
    problem = f"{where} knows no sandbox {metadata.sandbox_id}{wanted}."
    return SandboxState("unknown", not_found=True, problem=problem)
