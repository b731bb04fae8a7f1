"""Open ports, readiness probes, idle timeouts and terminals of sandboxes."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import modal
import psutil
import pytest
from modal.exception import ConflictError
from modal.exception import TimeoutError as ModalTimeoutError
from modal_proto.api_pb2 import GenericResult

from .support import PATIENCE, TREE, Sdk

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.path + " from " + os.environ["MODAL_SANDBOX_ID"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serve(sdk: Sdk, port: int, **options: Any) -> modal.Sandbox:
    probe = modal.Probe.with_tcp(port)
    sandbox = sdk.create("python", "-c", SERVER, str(port), readiness_probe=probe, **options)
    sandbox.wait_until_ready(timeout=PATIENCE)
    return sandbox


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def test_an_unencrypted_port(sdk: Sdk, backend: dict[str, Any]) -> None:
    port = free_port()
    sandbox = serve(sdk, port, unencrypted_ports=[port], **backend)
    tunnel = sandbox.tunnels()[port]
    assert get("http://{}:{}/x".format(*tunnel.tcp_socket)) == f"/x from {sandbox.object_id}"
    with pytest.raises(ConflictError, match=rf"Port {port} is in use by {sandbox.object_id}\."):
        sdk.create("true", unencrypted_ports=[port], **backend)
    sandbox.terminate(wait=True)
    with pytest.raises(OSError):
        socket.create_connection(tunnel.tcp_socket)
    with pytest.raises(ConflictError, match="has ended"):
        sdk.sandbox(sandbox.object_id).tunnels()


def test_an_encrypted_port_with_the_variables_of_local_env(sdk: Sdk) -> None:
    port = free_port()
    sandbox = serve(sdk, port, encrypted_ports=[port])
    url = sandbox.tunnels()[port].url
    assert url.startswith("https://localhost:")
    folder = str(sdk.info.state_dir)
    get_it = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    command = f'eval "$({sys.executable} -m modalrun local env --state-dir {folder})" &&'
    command += f" {sys.executable} -c '{get_it}' {url}/y"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": TREE, "HOME": str(sdk.info.state_dir.parent)},
    )
    assert done.stdout == f"/y from {sandbox.object_id}\n", done.stderr
    keys = [path.name for path in Path(folder, "certificates").iterdir()]
    assert sorted(keys) == ["authority.pem", "bundle.pem", "key.pem"]
    with pytest.raises(OSError, match="certificate verify failed"):
        get(url)
    # The sandbox serves on.
    assert sandbox.poll() is None


def test_a_port_that_cannot_be_opened_ends_the_sandbox(sdk: Sdk) -> None:
    for name in ("authority.pem", "key.pem"):
        Path(sdk.info.state_dir, "certificates", name).write_text("none")
    seconds = f"{free_port()}0"
    sandbox = sdk.create("sleep", seconds, encrypted_ports=[free_port()])
    assert sandbox.wait(raise_on_termination=False) is None
    assert sandbox.returncode == 1
    assert "could not be started" in sandbox.stderr.read()
    assert not [p for p in psutil.process_iter(["cmdline"]) if seconds in (p.info["cmdline"] or [])]


def test_a_port_of_another_process(sdk: Sdk) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConflictError, match=f"Port {port} is in use by another process"):
            sdk.create("true", unencrypted_ports=[port])


def test_a_probe_by_a_command(sdk: Sdk, backend: dict[str, Any]) -> None:
    probe = modal.Probe.with_exec("sh", "-c", "test -f ready", interval_ms=20)
    code = "read x; touch ready; read x"
    sandbox = sdk.create("sh", "-c", code, workdir="/job", readiness_probe=probe, **backend)
    with pytest.raises(ModalTimeoutError):
        sandbox.wait_until_ready(timeout=1)
    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    sandbox.wait_until_ready(timeout=PATIENCE)
    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    assert sandbox.wait() is None
    never = sdk.create("true", readiness_probe=modal.Probe.with_exec("false"), **backend)
    with pytest.raises(ConflictError, match="has ended"):
        never.wait_until_ready(timeout=PATIENCE)
    without = sdk.create("sleep", "1000", **backend)
    with pytest.raises(ConflictError, match="no readiness probe"):
        without.wait_until_ready(timeout=PATIENCE)


def test_a_port_without_a_network(sdk: Sdk) -> None:
    sandbox = serve(sdk, free_port(), block_network=True)
    assert sandbox.tunnels() == {}


def test_an_idle_sandbox_ends(sdk: Sdk, backend: dict[str, Any]) -> None:
    sandbox = sdk.create("sleep", "1000", idle_timeout=1, **backend)
    busy = sdk.create("sleep", "1000", idle_timeout=1, **backend)
    work = busy.exec("sleep", "3")
    sandbox.wait()
    record = sdk.record(sandbox)
    assert record.status == GenericResult.GENERIC_STATUS_IDLE_TIMEOUT
    assert record.exception == "The sandbox was idle for 1 seconds."
    assert work.wait() == 0
    busy.wait()
    assert sdk.record(busy).finished_at - sdk.record(busy).started_at > 3.5


def test_a_terminal(sdk: Sdk) -> None:
    code = (
        "import os, sys; print(os.isatty(0), os.environ['TERM']); print(input(), file=sys.stderr)"
    )
    sandbox = sdk.create("python", "-c", code, pty=True)
    lines = iter(sandbox.stdout)
    first = next(lines)
    assert first.startswith("True ")
    sandbox.stdin.write("typed\n")
    sandbox.stdin.drain()
    assert [line.rstrip() for line in lines] == ["typed", "typed"]
    assert sandbox.stderr.read() == ""
    assert sandbox.wait() is None
