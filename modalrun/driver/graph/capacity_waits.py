"""Keep what the steps of a run wait for: in ZenML, for `status`, and for a run that times out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from operator import methodcaller
from typing import TYPE_CHECKING

from modalrun.run.capacity_wait import CapacityWait
from modalrun.util.timeformat import duration_of

if TYPE_CHECKING:
    from modalrun.driver.graph.recorder import AsyncRecorder

_NAMED = 3
"""How many waits a reason names."""


class CapacityWaits:
    """Keep what the steps of one run wait for while Modal has no place for their sandboxes."""

    def __init__(self, recorder: AsyncRecorder) -> None:
        self._recorder = recorder
        self._waits: dict[str, CapacityWait] = {}
        self._waited: Counter[tuple[str, str]] = Counter()
        self._storing: asyncio.Task[None] | None = None

    def tell(self, step: str, wait: CapacityWait | None) -> None:
        """Note what a step waits for now; None if it does not wait."""
        before = self._waits.pop(step, None)
        if before is not None:
            self._waited[step, before.what] += round(time.time() - before.since)
        if wait is not None:
            self._waits[step] = wait
        self.store()

    def store(self) -> None:
        """Begin to store the present state, in place of what an earlier driver may have left."""
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store())

    def summary(self) -> str:
        """Return the longest waits that are over as a sentence; "" if there were none."""
        named = self._waited.most_common(_NAMED)
        texts = [f"`{step}` waited {duration_of(s, whole=True)} for {g}" for (step, g), s in named]
        return f"{', '.join(texts)}." if texts else ""

    async def _store(self) -> None:
        """Store what is waited for until that is the present state."""
        stored = None
        while stored != self._waits:
            stored = dict(self._waits)
            texts = {step: wait.text() for step, wait in stored.items()}
            # What is only shown must not end a run.
            with contextlib.suppress(Exception):
                await self._recorder.call(methodcaller("store_waits", texts))
