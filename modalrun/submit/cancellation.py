"""A run that somebody stops while it is being submitted: its image is built, or Modal has no room.

Others can't end what is only just being created. So they record in ZenML that the run is to stop,
and the process that submits it looks there while it waits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from modalrun.errors import Interrupted, ModalrunError, RunStoppedError
from modalrun.run.metadata import Announced, to_metadata
from modalrun.util import interrupts

ANNOUNCE_SECONDS = 1.0
"""When a submission counts as one that takes long; the others cost ZenML nothing."""

LOOK_SECONDS = 2.0
"""Between two looks at the run's record."""


@contextlib.contextmanager
def watched(run_id: str, announced: Announced) -> Iterator[None]:
    """Give up what is done inside when somebody stops the run.

    Args:
        run_id: ZenML's run id.
        announced: Where the run's sandbox will be, for others to know.

    Raises:
        RunStoppedError: Somebody stopped the run. What was created by then is the caller's to end.
    """
    watch = _Watch(run_id, announced)
    try:
        try:
            yield
        finally:
            watch.end()
    except (KeyboardInterrupt, Interrupted):
        if not watch.stopped:
            raise
        interrupts.forget()
        raise _stopped(run_id) from None
    except ModalrunError as error:
        # Whoever stops the run may have ended the sandbox that was being waited for.
        if watch.stopped or _is_stopped(run_id):
            raise _stopped(run_id) from error
        raise


class _Watch:
    """Looks at the run's record from a thread."""

    def __init__(self, run_id: str, announced: Announced) -> None:
        self.stopped = False
        self._run_id = run_id
        self._announced = announced
        self._over = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="withdrawal", daemon=True).start()

    def end(self) -> None:
        """From now on nothing is interrupted any more."""
        with self._lock:
            self._over.set()

    def _watch(self) -> None:
        from modalrun.zenml_api.records.runs import publish_metadata

        if self._over.wait(ANNOUNCE_SECONDS):
            return
        with contextlib.suppress(ModalrunError):
            publish_metadata(self._run_id, to_metadata(self._announced))
        while not self._over.wait(LOOK_SECONDS):
            if not _is_stopped(self._run_id):
                continue
            with self._lock:
                if not self._over.is_set():
                    self.stopped = True
                    interrupts.interrupt()
            return


def _is_stopped(run_id: str) -> bool:
    """Whether somebody wants the run to end; False where ZenML can't be asked."""
    from modalrun.zenml_api.records.run_access import stop_requested

    try:
        return stop_requested(run_id)
    except ModalrunError:
        return False


def _stopped(run_id: str) -> RunStoppedError:
    return RunStoppedError(
        f"The run {run_id} was stopped by somebody while it was being submitted. Nothing of it"
        " runs."
    )
