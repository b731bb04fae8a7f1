"""Cancel a submission when somebody stops its run: while an image is built or Modal is full.

Another process can't end a sandbox that is still being created. It records in ZenML that the run
is to stop, and the submitting process reads that record while it waits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from modalrun.errors import Interrupted, ModalrunError, RunStoppedError
from modalrun.util import interrupts
from modalrun.zenml_api.gateway import ZenMLGateway

ANNOUNCED_SECONDS = 3.0
"""How long a submission waits for ZenML to store its announcement."""


@contextlib.contextmanager
def cancelled_when_stopped(
    run_id: str,
    announcement: Mapping[str, Any],
    zenml: ZenMLGateway,
    *,
    poll_every: float = 2.0,
) -> Iterator[None]:
    """Interrupt the block when somebody stops the run.

    Args:
        announcement: Metadata for other processes: where the run sandbox will be, and which files
            it gets. It is stored first: whoever kills this process before the sandbox is recorded
            leaves that running.
        poll_every: Seconds between two reads of the run's status.

    Raises:
        RunStoppedError: Somebody stopped the run. The caller ends what it has created.
    """
    over, interrupted, lock = threading.Event(), threading.Event(), threading.Lock()
    announced = threading.Event()
    stopped = RunStoppedError(
        f"The run {run_id} was stopped by somebody while it was being submitted. Nothing of it"
        " runs."
    )

    def stop_requested() -> bool:
        try:
            return zenml.stop_requested(run_id)
        except ModalrunError:
            return False

    def poll() -> None:
        with contextlib.suppress(Exception):
            zenml.publish_metadata(run_id, announcement)
        announced.set()
        while not over.wait(poll_every):
            if stop_requested():
                with lock:
                    if not over.is_set():
                        interrupted.set()
                        interrupts.interrupt()
                return

    try:
        try:
            threading.Thread(target=poll, name="cancellation", daemon=True).start()
            announced.wait(ANNOUNCED_SECONDS)
            yield
        finally:
            with lock:
                over.set()
    except (KeyboardInterrupt, Interrupted):
        # What withdraws the run has the last word.
        announced.wait(ANNOUNCED_SECONDS)
        if not interrupted.is_set():
            raise
        interrupts.forget()
        raise stopped from None
    except ModalrunError as error:
        # `stop` may have ended the sandbox that the block was waiting for.
        if interrupted.is_set() or stop_requested():
            interrupts.forget()
            raise stopped from error
        raise
