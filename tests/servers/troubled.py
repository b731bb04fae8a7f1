"""A proxy before a ZenML server that answers chosen requests with an error or a page of its own."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Trouble:
    """Which requests fail, and how.

    Attributes:
        requests: What method and path of a failing request match.
        count: How many of them fail; None for all, until the trouble is over.
        status: The answer's status.
        handled: Whether the server handles the request first, so that only its answer is lost.
        page: Whether the answer is a page of the proxy's, not an error of ZenML's.
        cut: Whether the answer breaks off.
        seen: The requests that failed so far.
    """

    requests: str
    count: int | None = 1
    status: int = 500
    handled: bool = False
    page: bool = False
    cut: bool = False
    seen: list[str] = field(default_factory=list)

    def hits(self, request: str) -> bool:
        """Return whether a request fails, and count it."""
        if not re.search(self.requests, request):
            return False
        if self.count is not None and len(self.seen) >= self.count:
            return False
        self.seen.append(request)
        return True


class Proxy(ThreadingHTTPServer):
    """Pass requests on to a server, except while there is trouble.

    Args:
        target: The server's address.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.trouble: Trouble | None = None
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        with self.server.lock:
            trouble = self.server.trouble
            fails = trouble is not None and trouble.hits(f"{self.command} {self.path}")
        if trouble is None or not fails:
            self._answer(*self._ask(body))
            return
        if trouble.handled:
            self._ask(body)
        self.close_connection = trouble.cut
        body, kind = (_PAGE, "text/html") if trouble.page else (_ERROR, "application/json")
        self._answer(trouble.status, body, {"Content-Type": kind}, missing=trouble.cut)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass_on

    def _ask(self, body: bytes | None) -> tuple[int, bytes, Mapping[str, str]]:
        kept = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "connection"}}
        kept["Accept-Encoding"] = "identity"
        request = urllib.request.Request(
            self.server.target + self.path, body, kept, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str], *, missing: int = 0
    ) -> None:
        self.send_response(status)
        for name in ("WWW-Authenticate", "Retry-After"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Type", headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


_ERROR = b'{"detail": ["RuntimeError", "the database is full"]}'
_PAGE = b"<html>The application is starting.</html>"
