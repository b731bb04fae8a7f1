"""Create ids and times in the forms that the SDK expects."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """Create an id such as `ap-4Dk...`: 22 letters and digits, as `modal app logs` requires."""
    return f"{prefix}-" + "".join(secrets.choice(_BASE62) for _ in range(22))


def new_sandbox_ids(version: int) -> tuple[str, str]:
    """Create a sandbox id and a task id for a backend (1 or 2).

    The SDK recognizes V1 by 22 letters and digits, and V2 task ids by a final `V` (modal 1.6.4,
    `_get_sandbox_version` in `sandbox/_common.py`, `_is_v2_task_id` in
    `_task_command_router_client.py`).
    """
    if version == 1:
        task = new_id("ta")
        # A final V would mark a V2 task.
        return new_id("sb"), task[:-1] + "0" if task.endswith("V") else task
    ulid = "".join(secrets.choice(_CROCKFORD) for _ in range(26))
    return f"sb-{ulid}", new_id("ta") + "V"


def is_sandbox_id(text: str) -> bool:
    """Return whether a text has the form of the ids of `new_sandbox_ids`."""
    return re.fullmatch("sb-([0-9A-Za-z]{22}|[0-9A-Z]{26})", text) is not None


class Clock:
    """A strictly increasing wall clock, because entries and sandboxes are paged by time alone.

    When the machine's clock is set back, this one continues from where it was: lines that got the
    same time could not be fetched by it.
    """

    def __init__(self, last: float = 0.0, ahead: Callable[[], float] = lambda: 0.0) -> None:
        """
        Args:
            last: The last time that was given before, in seconds since 1970.
            ahead: Returns the seconds by which a fault script sets the clock ahead.
        """
        self._last = int(last * 1e9)
        self._ahead = ahead
        # The wall clock less the monotonic one, at its highest.
        self._offset = self._last - time.monotonic_ns()

    def now_ns(self) -> int:
        return self._next(1)

    def now(self) -> float:
        """Return seconds that grow by at least a microsecond, the precision of a double."""
        return self._next(1000) / 1e9

    def _next(self, step: int) -> int:
        elapsed = time.monotonic_ns()
        wall = time.time_ns() + int(self._ahead() * 1e9)
        self._offset = max(self._offset, wall - elapsed)
        self._last = max(elapsed + self._offset, self._last + step)
        return self._last
