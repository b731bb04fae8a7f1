"""Run a framework's own server in a sandbox, and send it work over its port.

Coding agents do so: a small runtime starts with the sandbox, and every action is a request to it.
"""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from typing import Any

import modal

RUNTIME = """
import http.server, json, os, subprocess, sys

class Runtime(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["X-Token"] != os.environ["RUNTIME_TOKEN"]:
            return self.answer(403, {"error": "wrong token"})
        done = subprocess.run(
            json.loads(body)["command"], shell=True, capture_output=True, text=True
        )
        self.answer(200, {"stdout": done.stdout, "code": done.returncode})

    def answer(self, status, document):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        print("handled", self.command, flush=True)

http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Runtime).serve_forever()
"""


class Runtime:
    """The client of a runtime in a sandbox."""

    def __init__(self, port: int) -> None:
        app = modal.App.lookup("runtimes", create_if_missing=True)
        self.token = secrets.token_hex(16)
        image = (
            modal.Image.from_registry("python:3.11-slim")
            .env({"PYTHONUNBUFFERED": "1"})
            .dockerfile_commands("WORKDIR /repo", 'ENTRYPOINT ["python", "-c"]')
        )
        self.sandbox = modal.Sandbox.create(
            RUNTIME,
            str(port),
            app=app,
            image=image,
            timeout=120,
            secrets=[modal.Secret.from_dict({"RUNTIME_TOKEN": self.token})],
            unencrypted_ports=[port],
            readiness_probe=modal.Probe.with_tcp(port),
        )
        self.sandbox.wait_until_ready(timeout=60)
        host, number = self.sandbox.tunnels()[port].tcp_socket
        self.url = f"http://{host}:{number}/"

    def do(self, command: str, token: str | None = None) -> Any:
        request = urllib.request.Request(
            self.url,
            json.dumps({"command": command}).encode(),
            {"X-Token": self.token if token is None else token},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)


def main(port: int) -> None:
    runtime = Runtime(port)
    print(runtime.do("pwd; echo 'print(6 * 7)' > answer.py"))
    print(runtime.do("python answer.py"))
    print(runtime.do("false"))
    print(runtime.do("ls", token="guess"))
    runtime.sandbox.terminate(wait=True)
    print(runtime.sandbox.stdout.read().splitlines())


main(8087)
