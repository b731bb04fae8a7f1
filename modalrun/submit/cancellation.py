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

ANNOUNCE_SECONDS = 1.0
"""After this long the run is announced and polled for; a shorter submission costs no request."""

POLL_SECONDS = 2.0
"""Between two reads of the run's status."""


@contextlib.contextmanager
def cancelled_when_stopped(
    run_id: str, announcement: Mapping[str, Any], zenml: ZenMLGateway
) -> Iterator[None]:
    """Interrupt the block when somebody stops the run.

    Args:
        run_id: ZenML's run id.
        announcement: Metadata on where the run sandbox will be, for other processes.
        zenml: Access to ZenML's records.

    Raises:
        RunStoppedError: Somebody stopped the run. The caller ends what it has created.
    """
    poll = _Poll(run_id, announcement, zenml)
    try:
        try:
            yield
        finally:
            poll.end()
    except (KeyboardInterrupt, Interrupted):
        if not poll.stopped:
            raise
        interrupts.forget()
        raise _stopped(run_id) from None
    except ModalrunError as error:
        # `stop` may have ended the sandbox that the block was waiting for.
        if poll.stopped or poll.stop_requested():
            raise _stopped(run_id) from error
        raise


class _Poll:
    """Poll the run's status from a thread; interrupt the main thread when it is to stop."""

    def __init__(self, run_id: str, announcement: Mapping[str, Any], zenml: ZenMLGateway) -> None:
        self.stopped = False
        self._run_id = run_id
        self._announcement = announcement
        self._zenml = zenml
        self._over = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="cancellation", daemon=True).start()

    def end(self) -> None:
        """Never interrupt from now on."""
        with self._lock:
            self._over.set()

    def stop_requested(self) -> bool:
        """Return whether the run is to stop; False while ZenML can't be reached."""
        try:
            return self._zenml.stop_requested(self._run_id)
        except ModalrunError:
            return False

    def _run(self) -> None:
        if self._over.wait(ANNOUNCE_SECONDS):
            return
        with contextlib.suppress(ModalrunError):
            self._zenml.publish_metadata(self._run_id, self._announcement)
        while not self._over.wait(POLL_SECONDS):
            if not self.stop_requested():
                continue
            with self._lock:
                if not self._over.is_set():
                    self.stopped = True
                    interrupts.interrupt()
            return


def _stopped(run_id: str) -> RunStoppedError:
    return RunStoppedError(
        f"The run {run_id} was stopped by somebody while it was being submitted. Nothing of it"
        " runs."
    )
