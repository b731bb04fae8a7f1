"""Limit the rate at which sandboxes are created. Pure: the caller has the clock."""

from __future__ import annotations

BURST = 150
"""Modal's limit at once; then 5 a second (modal.com/docs/guide/sandboxes, 2026-10-09)."""


class Pace:
    """Give out tokens: a burst at once, then `rate` a second."""

    def __init__(self, rate: float, burst: int = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._free_at = float("-inf")

    def wait(self, now: float) -> float:
        """Take a token; return the seconds to wait before it may be used."""
        # When the bucket would be full again; each token taken moves that by one interval.
        self._free_at = max(self._free_at, now) + 1 / self._rate
        return max(0.0, self._free_at - now - self._burst / self._rate)
