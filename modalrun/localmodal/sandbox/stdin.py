"""Write the input of a command by calls that a client may repeat."""

from __future__ import annotations

import asyncio

from modalrun.localmodal.sandbox.process import SandboxProcess


class Stdin:
    """The input of one command.

    Attributes:
        written: Bytes so far.
        closed: Whether its end was written.
    """

    def __init__(self, started: asyncio.Future[SandboxProcess | None]) -> None:
        self._started = started
        self.written = 0
        self.closed = False
        self._calls = 0
        self._lock = asyncio.Lock()

    async def write(
        self, data: bytes, *, offset: int | None = None, index: int | None = None, eof: bool
    ) -> None:
        """Send input to the command; drop what a repeated call sends again.

        Args:
            offset: Position of `data` in the input as a whole.
            index: Number of the call, from 1.

        Raises:
            BrokenPipeError: The input was closed or the command has ended.
        """
        process = await asyncio.shield(self._started)
        if process is None:
            raise BrokenPipeError
        async with self._lock:
            if index is not None:
                if index and index <= self._calls:
                    return
                self._calls = index
            if offset is not None:
                data = data[max(0, self.written - offset) :]
                if self.closed and not data:
                    # The SDK repeats the end (`modal/io_streams.py`, 1.6.4).
                    return
            await process.write_stdin(data, eof=eof)
            self.written += len(data)
            self.closed = eof
