"""Find where the log lines of a run are, running or over."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from uuid import UUID

from modalrun.errors import ModalrunError, NotFoundError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.gateway import MODAL
from modalrun.observe.resumption import PAUSE
from modalrun.observe.status import connect, find_sandbox, resolve
from modalrun.run.records import RunRecord, run_argument
from modalrun.run.run_plan import Target
from modalrun.util.environment import restored_environment
from modalrun.util.paths import user_path
from modalrun.util.retry import while_connection_lost
from modalrun.zenml_api import process
from modalrun.zenml_api.gateway import ZENML


@dataclass(frozen=True)
class LogSource:
    """Where the lines of a run are.

    Attributes:
        sandbox: Modal's id of its run sandbox; of several, the last.
        connection: The connection to Modal; None if there is none, see `problem`.
        running: Whether more lines can come.
        since: When the run began, in seconds since the epoch; None if not known.
        until: When it ended; None if it has not, or that is not known.
        problem: Why there is no connection.
        use_zenml: Opens a session with ZenML, unless one is open.
        earlier: The run sandboxes before the run was resumed, oldest first.
    """

    run_id: str
    sandbox: str
    connection: Connection | None
    running: bool
    since: float | None = None
    until: float | None = None
    problem: str | None = None
    use_zenml: Callable[[], object] = lambda: None
    earlier: tuple[str, ...] = ()

    @property
    def run_sandboxes(self) -> tuple[str, ...]:
        """The ids of all run sandboxes, oldest first."""
        return (*self.earlier, self.sandbox)


def find(
    text: str | None,
    *,
    interactive: bool,
    zenml: ExitStack,
    say: Callable[[str], None],
    follow: bool = False,
) -> LogSource:
    """Find the lines of the run that RUN selects.

    A running run is found by its whole id through the tags of its sandbox, without ZenML, whose
    import takes twice as long as all else.

    Args:
        interactive: Whether a person sits at a terminal.
        zenml: Closes the session with ZenML, if one is opened.
        say: Receives a sentence when a connection is lost; it is tried again for a minute.
        follow: Whether to wait for the run sandbox; `say` receives what that waits for.

    Raises:
        UsageError, NotFoundError: RUN is missing, or matches no run or several.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    argument = run_argument(text, interactive=interactive)

    @functools.cache
    def use_zenml() -> None:
        zenml.enter_context(process.zenml_session())

    if (run_id := _whole_id(argument)) is not None:
        found = _find_running(run_id)
        if found is not None:
            return replace(found, use_zenml=use_zenml)

    def resolved() -> RunRecord:
        use_zenml()
        return resolve(argument)

    run = find_sandbox(while_connection_lost(resolved, say), placed=True)
    return source_of(_with_sandbox(run, say) if follow else run, say)


def _with_sandbox(run: RunRecord, say: Callable[[str], None]) -> RunRecord:
    """Wait until a run that is being submitted has its sandbox, or is over."""
    said, read = None, functools.partial(ZENML.read_run, run.id)
    while run.metadata is None and run.announced and not run.finished:
        if (waiting := run.announced.waiting or "being submitted") != said:
            said = waiting
            say(f"The run {run.name} has no sandbox yet: it is {said}.")
        time.sleep(PAUSE)
        run = while_connection_lost(read, say)
    return run


def _whole_id(text: str) -> str | None:
    try:
        return str(UUID(text)) if len(text) >= 32 else None
    except ValueError:
        return None


def _find_running(run_id: str) -> LogSource | None:
    from modalrun.localmodal import launcher

    target: Target = "local"
    with ExitStack() as undo:
        # A connection to the local server points the SDK at it through variables.
        undo.enter_context(restored_environment())
        # ZenML may know better where it is.
        undo.enter_context(contextlib.suppress(ModalrunError))
        server = launcher.status()
        if server is None or not server["running"]:
            configuration = os.environ.get("MODAL_CONFIG_PATH") or "~/.modal.toml"
            path = user_path(configuration, "MODAL_CONFIG_PATH")
            if not (os.environ.get("MODAL_TOKEN_ID") or path.exists()):
                return None
            target = "modal"
        connection = MODAL.connect(target)
        if (sandbox := MODAL.running_run_sandbox(connection, run_id)) is not None:
            undo.pop_all()
            return LogSource(run_id, sandbox, connection, running=True)
    return None


def source_of(run: RunRecord, say: Callable[[str], None]) -> LogSource:
    """Return where the lines of a run are; see `find`."""
    if run.metadata is None:
        if run.status == "completed":
            _, steps = ZENML.read_run_and_steps(run.id)
            if all(step.status == "cached" for step in steps):
                raise NotFoundError(
                    f"The run {run.id} ({run.name}) has printed nothing: all its steps are cached,"
                    " so it needed no sandbox."
                )
        if run.announced and not run.finished:
            raise NotFoundError(
                f"The run {run.id} ({run.name}) has no sandbox yet.",
                hint="It is only just being submitted: try again.",
            )
        # ZenML may have stored its lines, whatever has run it.
        what = "The run has no sandbox" if run.announced else "modalrun did not start the run"
        if run.parent is not None:
            what = f"The run is a child of {run.root}, whose logs have its lines"
            what += f" ('modalrun logs {run.root}')"
        why = run.problem.rstrip(".") if run.problem else what
        return LogSource(run.id, "", None, running=False, problem=why)
    connection, problem, metadata = None, None, run.metadata
    try:
        connection = while_connection_lost(lambda: connect(run.id, metadata), say)
    except ModalrunError as error:
        if not run.finished:
            raise
        problem = error.problem
    return LogSource(
        run.id,
        run.metadata.sandbox_id,
        connection,
        running=not run.finished,
        since=run.created.timestamp(),
        until=run.end.timestamp() if run.end else None,
        problem=problem,
        earlier=run.metadata.earlier_sandboxes,
    )
