"""Create ids and times in the forms that the SDK expects."""

from __future__ import annotations

import secrets
import time

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


class Clock:
    """A strictly increasing wall clock, because entries and sandboxes are paged by time alone."""

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def now_ns(self) -> int:
        self._last = max(time.time_ns(), self._last + 1)
        return self._last

    def now(self) -> float:
        """Return seconds that grow by at least a microsecond, the precision of a double."""
        self._last = max(time.time_ns(), self._last + 1000)
        return self._last / 1e9
