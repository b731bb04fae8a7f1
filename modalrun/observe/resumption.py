"""A `per_step` run whose driver is gone: those who look on wait for another one to take over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from modalrun.errors import ConnectionLostError
from modalrun.run.contract import EXIT_KILLED

if TYPE_CHECKING:
    from modalrun.modal_api import Connection
    from modalrun.run.records import RunRecord

PATIENCE = 60.0
"""Seconds for which another driver is waited for once nothing of the run runs any more."""

PAUSE = 1.0
"""Seconds between two looks: nobody tells onlookers that a run was resumed."""


def may_follow(run: RunRecord, exit_code: int | None) -> bool:
    """Whether another driver may go on with a run whose run sandbox has ended.

    Args:
        run: The run.
        exit_code: Of its run sandbox. A driver that ends by itself settles the run's record.
    """
    resumable = run.metadata is not None and run.metadata.mode == "per_step"
    return resumable and not run.finished and exit_code == EXIT_KILLED


def next_driver(
    run_id: str,
    connection: Connection,
    gone: str,
    pause: Callable[[frozenset[str]], bool],
    patience: float = PATIENCE,
) -> RunRecord | None:
    """Wait for the next driver of a run. To be called where ZenML is used.

    Args:
        run_id: ZenML's run id.
        connection: To where its sandboxes are.
        gone: Modal's id of the run sandbox that has ended.
        pause: Waits a little, and returns whether to go on; is given the step sandboxes that run.
        patience: How long to wait when none of them runs any more, in seconds.

    Returns:
        The run with its new run sandbox; None where it is over, or no driver has come.

    Raises:
        NotFoundError: ZenML has the run no longer, or Modal its app.
        AuthenticationError: ZenML or Modal refuses.
    """
    from modalrun.modal_api import lookup
    from modalrun.zenml_api.records import queries

    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            run = queries.by_id(run_id)
            facts = run.metadata
            # First: the next driver may have brought the run to its end already.
            if facts is not None and facts.sandbox_id != gone:
                return run
            if facts is None or run.finished:
                return None
            living = lookup.running_steps(connection, run_id, facts)
        except ConnectionLostError:
            # Whoever looks on loses nothing by asking again.
            living = frozenset()
        if living:
            until = time.monotonic() + patience
        if not pause(living):
            return None
    return None
