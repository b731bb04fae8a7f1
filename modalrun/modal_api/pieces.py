"""What comes of a sandbox's streams. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from modalrun.errors import ModalrunError


@dataclass(frozen=True)
class Piece:
    """A piece of a stream.

    Attributes:
        sandbox: Modal's id of the sandbox.
        source: Which stream, or "system" for Modal's own word (in the history only).
        text: Text; not necessarily whole lines.
        time: When it was written, in seconds since the epoch; None where only its arrival is known.
        missing: Bytes that the live stream no longer holds, after this text.
        lost: Of those, what the history doesn't hold either.
    """

    sandbox: str
    source: str
    text: str = ""
    time: float | None = None
    missing: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a stream. With an error, it is not known how it went on."""

    sandbox: str
    source: str
    error: ModalrunError | None = None
