"""A TCP proxy between SDK and server that cuts every connection at a random byte or moment."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time

_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """A proxy with its own port, which the SDK's second service uses too.

    Attributes:
        url: What to give the SDK as the server's address.
        cuts: How many connections it has cut.
    """

    def __init__(
        self, upstream_port: int, *, mean_bytes: int, mean_seconds: float, seed: int
    ) -> None:
        self.cuts = 0
        self._upstream = upstream_port
        self._mean_bytes = mean_bytes
        self._mean_seconds = mean_seconds
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self.url = f"http://127.0.0.1:{self._port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self) -> None:
        """Cut from now on, also the connections that are there."""
        self._begun.set()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                client.close()
                continue
            # Whichever comes first, at any byte of the traffic.
            pair = _Pair(
                self, client, server, 1 + int(self._random.expovariate(1 / self._mean_bytes))
            )
            seconds = self._random.expovariate(1 / self._mean_seconds)
            threading.Thread(target=self._cut_after, args=(pair, seconds), daemon=True).start()
            threading.Thread(target=pair.pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=pair.pump, args=(server, client, True), daemon=True).start()

    def _cut_after(self, pair: _Pair, seconds: float) -> None:
        self._begun.wait()
        time.sleep(seconds)
        pair.cut()

    def rewritten(self, data: bytes) -> bytes:
        """Replace the server's address in its answers by the proxy's. Ports have 5 digits."""
        return data.replace(
            f"127.0.0.1:{self._upstream}".encode(), f"127.0.0.1:{self._port}".encode()
        )

    def count(self) -> None:
        with self._lock:
            self.cuts += 1


class _Pair:
    def __init__(
        self, proxy: CuttingProxy, client: socket.socket, server: socket.socket, budget: int
    ) -> None:
        self._proxy = proxy
        self._sockets = (client, server)
        self._left = budget
        self._cut = False
        self._lock = threading.Lock()

    def pump(self, source: socket.socket, sink: socket.socket, downstream: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if downstream:
                    data = self._proxy.rewritten(data)
                with self._lock:
                    allowed, self._left = data[: max(0, self._left)], self._left - len(data)
                sink.sendall(allowed)
                if len(allowed) < len(data):
                    break
        self.cut()

    def cut(self) -> None:
        with self._lock:
            if self._cut:
                return
            self._cut = True
        self._proxy.count()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # Not `close` alone: a thread may sit in `recv`.
                one.shutdown(socket.SHUT_RDWR)
            one.close()
