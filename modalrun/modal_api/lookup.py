"""Look up the sandboxes of runs that another process has started."""

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
    """Return the state of a run's sandboxes; an error becomes the state "unknown".

    Args:
        run_id: ZenML's run id.
        metadata: What is recorded of the run's sandboxes.
        connect: Connects to their server, or raises a ModalrunError.
    """
    if metadata.target == "local" and not launcher.default_state_dir().exists():
        # A server that was started for the question would know no sandbox.
        return _unknown(metadata)
    try:
        connection = connect()
        # To attach asks for the sandbox's state too.
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
    """Return the ids of the running step sandboxes of a run.

    Raises:
        AuthenticationError, NotFoundError, ConnectionLostError: Modal refuses the token, does not
            know the app any more, or can't be reached.
    """
    import modal

    tags = {TAG_RUN: run_id, TAG_ROLE: "step"}
    with translated():
        found = modal.Sandbox.list(app_id=metadata.app_id, tags=tags, client=connection.client)
        return frozenset(sandbox.object_id for sandbox in found)


def app_id(connection: Connection, name: str, environment: str | None) -> str | None:
    """Return Modal's id of an app; None if there is none of that name.

    Raises:
        AuthenticationError, ConnectionLostError: Modal refuses the token or can't be reached.
    """
    import modal

    try:
        with translated():
            app = modal.App.lookup(name, environment_name=environment, client=connection.client)
    except NotFoundError:
        return None
    return app.app_id


def running_run_sandbox(connection: Connection, run_id: str) -> str | None:
    """Find the running sandbox of a run by its tags alone, when its app is not known.

    Returns:
        Modal's id; None also for a run that was resumed, whose earlier sandboxes only ZenML's
        record names.

    Raises:
        AuthenticationError, ConnectionLostError: Modal refuses the token or can't be reached.
    """
    import modal

    with translated(), warnings.catch_warnings():
        # A list without an app is deprecated: it covers every sandbox of the environment.
        warnings.simplefilter("ignore")
        tags = {TAG_RUN: run_id, TAG_ROLE: "run"}
        found = modal.Sandbox.list(tags=tags, client=connection.client)
        sandbox = next(iter(found), None)
        if sandbox is None or TAG_AFTER in sandbox.get_tags():
            return None
        return sandbox.object_id


def run_sandbox(connection: Connection, metadata: RunMetadata) -> RunningSandbox:
    """Attach to the run sandbox of a run.

    Raises:
        AuthenticationError, NotFoundError, ConnectionLostError: Modal refuses the token, does not
            know the sandbox, or can't be reached.
    """
    sandbox = connection.attach(metadata.sandbox_id)
    return RunningSandbox(connection, sandbox, app_id=metadata.app_id, gpu=metadata.gpu)


def _unknown(metadata: RunMetadata) -> SandboxState:
    server = (
        "the local Modal server of this user and machine"
        if metadata.target == "local"
        else "the Modal workspace that the token belongs to"
    )
    origin = f"; the run went to the workspace '{metadata.workspace}'" if metadata.workspace else ""
    problem = f"{server} knows no sandbox {metadata.sandbox_id}{origin}."
    return SandboxState("unknown", not_found=True, problem=problem)
