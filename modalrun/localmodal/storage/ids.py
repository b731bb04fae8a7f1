"""Ids and times in the forms that the SDK expects."""

from __future__ import annotations

import secrets
import time

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """An id such as `ap-4Dk...`: 22 letters and digits, the form that `modal app logs` demands."""
    return f"{prefix}-" + "".join(secrets.choice(_BASE62) for _ in range(22))


def new_sandbox_ids(version: int) -> tuple[str, str]:
    """Sandbox id and task id for a backend (1 or 2).

    The SDK tells the backends apart by the shape of the id (modal 1.6.4, `sandbox/_common.py`
    `_get_sandbox_version` and `_task_command_router_client.py` `_is_v2_task_id`): 22 letters and
    digits are V1, all else V2; V2 task ids end in `V`.
    """
    if version == 1:
        task = new_id("ta")
        # A V1 task id that ended in V would be taken for one of V2.
        return new_id("sb"), task[:-1] + "0" if task.endswith("V") else task
    ulid = "".join(secrets.choice(_CROCKFORD) for _ in range(26))
    return f"sb-{ulid}", new_id("ta") + "V"


class Clock:
    """Wall-clock time in nanoseconds that never repeats and never goes back.

    Log entries and sandboxes are paged by their time alone, so two of them must not share one.
    """

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def now_ns(self) -> int:
        self._last = max(time.time_ns(), self._last + 1)
        return self._last

    def now(self) -> float:
        """Seconds; later calls differ by at least a microsecond, which a double can tell apart."""
        self._last = max(time.time_ns(), self._last + 1000)
        return self._last / 1e9
