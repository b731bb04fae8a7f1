"""Read the address of a running server, and send it HTTP requests through its control socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modalrun.localmodal import peers
from modalrun.localmodal.storage.paths import STATE_VARIABLE, StateDir

UNISOLATED_VARIABLE = "MODALRUN_LOCAL_UNISOLATED"

UNISOLATED = (
    f"With {UNISOLATED_VARIABLE}=1 the sandboxes of the local Modal server are not isolated: they"
    " can change your files, and what they should have at /path is at $MODALRUN_LOCAL_ROOT/path."
)

VARIABLES = (
    "MODAL_SERVER_URL",
    "MODAL_TOKEN_ID",
    "MODAL_TOKEN_SECRET",
    "MODAL_ENVIRONMENT",
    "MODAL_CONFIG_PATH",
    STATE_VARIABLE,
    "NO_PROXY",
    "no_proxy",
)
"""The variables that `ServerInfo.environ` sets."""

_ANSWER_LIMIT = 5.0


def is_set(variable: str) -> bool:
    """Return whether an environment variable is set, and not to 0."""
    return os.environ.get(variable, "0") not in ("", "0")


@dataclass(frozen=True)
class ServerInfo:
    """A running server.

    Attributes:
        started_at: In seconds since 1970.
        isolated_python: Whether sandboxes run the Python of their image, not this one.
    """

    url: str
    token_id: str
    token_secret: str
    pid: int
    state_dir: Path
    version: str
    started_at: float
    isolated_python: bool

    def __repr__(self) -> str:
        return f"ServerInfo(url={self.url!r}, pid={self.pid}, state_dir={str(self.state_dir)!r})"

    def environ(self) -> dict[str, str]:
        """Return the variables that point the Modal SDK and CLI to this server.

        They override ~/.modal.toml, and HTTP_PROXY, which the SDK uses even for 127.0.0.1. A
        MODAL_ENVIRONMENT stays where the variables are set already; elsewhere it is one of Modal's
        cloud.
        """
        local = ["127.0.0.1", "localhost"]
        current = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
        kept = [host for host in current.split(",") if host and host not in local]
        no_proxy = ",".join([*kept, *local])
        config = str(StateDir(self.state_dir).modal_config)
        # modalrun itself finds the server, and starts it again, by its folder.
        folder = str(self.state_dir)
        token = (self.token_id, self.token_secret)
        chosen = os.environ.get("MODAL_ENVIRONMENT") if os.environ.get(STATE_VARIABLE) else None
        values = (self.url, *token, chosen or "main", config, folder, no_proxy, no_proxy)
        return dict(zip(VARIABLES, values, strict=True))


class NoAnswerError(Exception):
    """The server does not answer."""


@contextlib.contextmanager
def connection(state: StateDir) -> Iterator[socket.socket]:
    """Connect to the server of a state folder.

    Others can use a TCP port after its server has ended. They can neither bind nor reach a socket
    in a folder of ours.

    Raises:
        OSError: No server of this user listens.
    """
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(_ANSWER_LIMIT)
        if sys.platform == "linux":
            # The path of a socket has 108 bytes at most.
            folder = os.open(state.root, os.O_PATH)
            try:
                connected.connect(f"/proc/self/fd/{folder}/{state.control_socket.name}")
            finally:
                os.close(folder)
        else:
            connected.connect(str(state.control_socket))
        if not peers.is_own(connected):
            raise PermissionError("the process that listens there is another user's")
        yield connected


def ask_parts(
    state: StateDir, method: str, path: str, limit: float | None, body: bytes = b""
) -> Iterator[bytes]:
    """Send an HTTP request to the server of a state folder and stream the body of its answer.

    Args:
        limit: Seconds to wait for each part; None for no limit.

    Raises:
        NoAnswerError: The server does not answer, or not with status 200.
    """
    request = f"{method} {path} HTTP/1.1\r\nHost: local\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = b""
    try:
        with connection(state) as connected:
            connected.sendall(request.encode() + body)
            connected.settimeout(limit)
            while b"\r\n\r\n" not in answer and (part := connected.recv(65536)):
                answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise NoAnswerError(head.split(b"\r\n")[0].decode("latin-1"))
            yield body
            while part := connected.recv(65536):
                yield part
    except OSError as error:
        raise NoAnswerError(str(error)) from error


def ask(
    state: StateDir, method: str, path: str, body: bytes = b"", limit: float = _ANSWER_LIMIT
) -> bytes:
    """Send an HTTP request to the server; return the body of its answer. Raises NoAnswerError."""
    return b"".join(ask_parts(state, method, path, limit, body))


def read_info(state: StateDir) -> ServerInfo | None:
    """Read the info file; None if it is missing or not valid."""
    try:
        return ServerInfo(**json.loads(state.info_file.read_text("utf-8")), state_dir=state.root)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
