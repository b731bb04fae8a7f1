"""Start a web server in a sandbox, wait until it serves, and ask it by its tunnel."""

from __future__ import annotations

import time
import urllib.request
from urllib.error import URLError

import modal

PAGE = "<h1>from a sandbox</h1>"


def get(url: str) -> str:
    """Ask until there is an answer."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except (URLError, ConnectionError):  # noqa: PERF203
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def main() -> None:
    """Serve a page."""
    app = modal.App.lookup("web-server", create_if_missing=True)
    sandbox = modal.Sandbox.create(
        app=app, image=modal.Image.debian_slim(), timeout=120, unencrypted_ports=[8765]
    )
    sandbox.filesystem.write_text(PAGE, "/srv/site/index.html")
    sandbox.exec("python", "-m", "http.server", "8765", "--directory", "/srv/site")
    host, port = sandbox.tunnels()[8765].tcp_socket
    print(get(f"http://{host}:{port}/"))
    sandbox.filesystem.write_text("changed", "/srv/site/index.html")
    print(get(f"http://{host}:{port}/index.html"))
    sandbox.terminate(wait=True)


main()
