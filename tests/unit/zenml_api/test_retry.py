"""Repeat requests while a server is away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from requests.adapters import HTTPAdapter

from modalrun.zenml_api.retry import retry_policy

ZENML_GIVES_UP_AFTER = 10
"""Attempts (`rest_zen_store.py`, property `session`, ZenML 0.98.0)."""


class Scripted(ThreadingHTTPServer):
    """A server that answers by a script, one status after the other; 0 hangs up instead."""

    script: list[int]
    asked: int = 0


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_PUT(self) -> None:
        self.server.asked += 1
        status = self.server.script.pop(0) if self.server.script else 200
        if not status:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server that is bound, but doesn't listen before the test starts it."""
    made = Scripted(("127.0.0.1", 0), _Handler, bind_and_activate=False)
    made.server_bind()
    made.script = []
    yield made
    made.shutdown()
    made.server_close()


def put(server: Scripted, logged: list[str], heard: threading.Event | None = None) -> int:
    session = requests.Session()
    address = f"http://127.0.0.1:{server.server_address[1]}/"

    def log(text: str) -> None:
        logged.append(text)
        if heard is not None:
            heard.set()

    session.mount(address, HTTPAdapter(max_retries=retry_policy(log, pause=0)))
    return session.put(f"{address}api/v1/steps", timeout=30).status_code


def serve(server: Scripted) -> None:
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()


def test_a_server_that_is_not_there_yet(server: Scripted) -> None:
    missed = threading.Event()

    def come() -> None:
        missed.wait(30)
        serve(server)

    threading.Thread(target=come, daemon=True).start()
    logged: list[str] = []
    assert put(server, logged, missed) == 200
    assert len(logged) == 1
    assert "The ZenML server doesn't answer (" in logged[0]


def test_a_proxy_that_answers_for_a_server_that_starts(server: Scripted) -> None:
    serve(server)
    server.script = [503] * (ZENML_GIVES_UP_AFTER * 3)
    logged: list[str] = []
    assert put(server, logged) == 200
    assert logged == ["The ZenML server doesn't answer (status 503); trying again."]


def test_a_request_that_is_never_answered_fails(server: Scripted) -> None:
    serve(server)
    server.script = [0] * 100
    with pytest.raises(requests.ConnectionError):
        put(server, [])
    assert server.asked == 9
