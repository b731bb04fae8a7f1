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


@contextlib.contextmanager
def cancelled_when_stopped(
    run_id: str,
    announcement: Mapping[str, Any],
    zenml: ZenMLGateway,
    *,
    announce_after: float = 1.0,
    poll_every: float = 2.0,
) -> Iterator[None]:
    """Interrupt the block when somebody stops the run.

    Args:
        announcement: Metadata on where the run sandbox will be, for other processes.
        announce_after: Seconds until the announcement is stored and the polling begins. A shorter
            submission makes no request.
        poll_every: Seconds between two reads of the run's status.

    Raises:
        RunStoppedError: Somebody stopped the run. The caller ends what it has created.
    """
    over, interrupted, lock = threading.Event(), threading.Event(), threading.Lock()
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
        if over.wait(announce_after):
            return
        with contextlib.suppress(ModalrunError):
            zenml.publish_metadata(run_id, announcement)
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
            yield
        finally:
            with lock:
                over.set()
    except (KeyboardInterrupt, Interrupted):
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
