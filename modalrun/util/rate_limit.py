"""How fast sandboxes are created. Pure: the caller has the clock."""

from __future__ import annotations

BURST = 150
"""What Modal takes at once; 5 a second after that (modal.com/docs/guide/sandboxes, 2026-10-09)."""


class Pace:
    """A bucket of tokens: a burst at once, then one after the other at a rate."""

    def __init__(self, rate: float, burst: int = BURST) -> None:
        """
        Args:
            rate: Tokens a second.
            burst: How many there are to begin with, and at most.
        """
        self._rate = rate
        self._burst = burst
        self._free_at = float("-inf")

    def wait(self, now: float) -> float:
        """Take a token; returns the seconds to wait before it may be used.

        Who asks first is served first: a token that isn't there yet is taken in advance.
        """
        # When the bucket would be full again; each token taken moves that by one interval.
        self._free_at = max(self._free_at, now) + 1 / self._rate
        return max(0.0, self._free_at - now - self._burst / self._rate)
