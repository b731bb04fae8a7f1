"""Say what the creation of a sandbox waits for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from modalrun.util.timeformat import duration_of


@dataclass(frozen=True)
class CapacityWait:
    """A sandbox that Modal has no place for yet.

    Attributes:
        what: The GPU type that is asked for, or several: "H100", "H100 or A100".
        following: The type that is asked for next; None for none.
        since: When it was asked for, in seconds since the epoch.
    """

    what: str
    following: str | None
    since: float

    def text(self, now: float | None = None) -> str:
        """Return "waiting for H100 (40 s), next: A100"; without `now`, without the time."""
        time = "" if now is None else f" ({duration_of(max(0.0, now - self.since), whole=True)})"
        following = f", next: {self.following}" if self.following else ""
        return f"waiting for {self.what}{time}{following}"
