"""Start and restart the process that keepers are forked from."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.localmodal.sandbox import keeper

if TYPE_CHECKING:
    from modalrun.localmodal.sandbox.shared_nursery import Forked


class Nursery:
    """The process that keepers are forked from. `state` is shown by `ps`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> None:
        """Start it. Requests wait until it is ready, some 30 ms later."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (the command is ours)
                [
                    *(sys.executable, "-I", "-S", keeper.__file__),
                    *(str(theirs.fileno()), str(self._state)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={},
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours

    @property
    def process(self) -> subprocess.Popen[bytes] | Forked | None:
        """The process as it is now; a restart replaces it."""
        return self._process

    def fork(self, kind: bytes, descriptors: Sequence[int]) -> None:
        """Fork a keeper; restart the nursery first if it was killed. Raises OSError.

        Args:
            kind: Where its command runs: `keeper.PLAIN` and its like.
            descriptors: What `keeper.keep` needs.
        """
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self.close()
            self.start()
        try:
            self._send(kind, descriptors)
        except ConnectionError:
            # It is dying, but has not ended.
            self.close()
            self.start()
            self._send(kind, descriptors)

    def _send(self, kind: bytes, descriptors: Sequence[int]) -> None:
        assert self._socket is not None
        # A stopped nursery may not stop the server.
        socket.send_fds(self._socket, [kind], descriptors, socket.MSG_DONTWAIT)

    def kill(self) -> None:
        """Kill it; its keepers continue, and what it has not forked yet is cancelled."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it; its keepers continue."""
        if self._socket is not None and self._process is not None:
            self.kill()
            self._socket.close()
            self._process.wait()
            self._socket = self._process = None
