"""Wait for the replacement of a `per_step` run's driver."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from modalrun.errors import ConnectionLostError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.gateway import MODAL
from modalrun.run.records import RunRecord
from modalrun.zenml_api.gateway import ZENML

PATIENCE = 60.0
"""Seconds to wait for another driver once nothing of the run runs any more."""

PAUSE = 1.0
"""Seconds between two reads: a resumption is not announced to observers."""


def wait_for_driver(
    run_id: str,
    connection: Connection,
    ended: str,
    pause: Callable[[frozenset[str]], bool],
) -> RunRecord | None:
    """Wait for the next driver of a run.

    Args:
        ended: Modal's id of the run sandbox that has ended.
        pause: Waits a moment and returns whether to continue; receives the running step sandboxes.

    Returns:
        The run with its new run sandbox; None where it is over, or no driver has come.

    Raises:
        NotFoundError: ZenML has the run no longer, or Modal its app.
        AuthenticationError: ZenML or Modal refuses.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        running: frozenset[str] = frozenset()
        # After a lost connection the next read may succeed.
        with suppress(ConnectionLostError):
            run = ZENML.read_run(run_id)
            # First: the next driver may have finished the run already.
            if run.metadata is not None and run.metadata.sandbox_id != ended:
                return run
            if run.metadata is None or run.finished:
                return None
            running = MODAL.running_steps(connection, run_id, run.metadata)
        if running:
            until = time.monotonic() + PATIENCE
        if not pause(running):
            return None
    return None
