"""Keep the process that has the Modal token of a dynamic run, for the supervisor.

It is started once, before any user code runs: what user code has changed of the files in the
sandbox must not run with the token.
"""

from __future__ import annotations

import contextlib
import socket

from modalrun.driver.processes.spawn import Child
from modalrun.run import contract

CONNECT, TERMINATE = b"c", b"t"

TERMINATE_SECONDS = 25.0
"""How long the termination of all step sandboxes may take; the broker gives up before."""


class BrokerLink:
    """The broker, as its supervisor sees it.

    Attributes:
        arguments: What to start it with, after `python -m`.
        inherited: The descriptors that it has to inherit.
    """

    def __init__(self, manifest: str) -> None:
        """Prepare the start, with the file that holds the run's manifest."""
        self._socket, self._theirs = socket.socketpair()
        self.inherited = (self._theirs.fileno(),)
        self.arguments = [contract.BROKER_MODULE, str(self._theirs.fileno()), manifest]
        self._process: Child | None = None

    def started(self, process: Child) -> None:
        """Take the started process."""
        self._theirs.close()
        self._process = process

    def connect(self) -> int:
        """Return the descriptor of a new socket on which a process can ask for sandboxes."""
        ours, theirs = socket.socketpair()
        # Without a broker the process finds the socket closed.
        with ours, contextlib.suppress(OSError):
            socket.send_fds(self._socket, [CONNECT], [ours.fileno()])
        return theirs.detach()

    def terminate_sandboxes(self) -> bool:
        """Have the broker terminate the step sandboxes; return whether it has done so."""
        self._socket.settimeout(TERMINATE_SECONDS)
        try:
            self._socket.sendall(TERMINATE)
            return self._socket.recv(1) == TERMINATE
        except OSError:
            return False

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket.close()
