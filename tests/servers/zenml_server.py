"""A ZenML server process, started as ZenML itself starts it, and what tests ask of it."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.process import Server, free_port


@dataclass(frozen=True)
class Backend:
    """What several ZenML servers can share, as replicas do: the database and the signing key."""

    store_url: str
    """The database as `ZENML_STORE_URL`; "" for an SQLite file below `config`."""
    config: str
    """ZenML's configuration folder for servers on SQLite."""
    signing_key: str
    password: str
    """Of the user `default`, who may do everything."""

    def environment(self, home: Path) -> dict[str, str]:
        """What a server process gets, besides where programs are."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        made = kept | {
            "HOME": str(home),
            "TMPDIR": str(home),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_SERVER": "true",
            "ZENML_SERVER_AUTO_ACTIVATE": "1",
            "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
            "ZENML_SERVER_JWT_SECRET_KEY": self.signing_key,
            "ZENML_DEFAULT_USER_NAME": "default",
            "ZENML_DEFAULT_USER_PASSWORD": self.password,
        }
        if self.store_url:
            own = {"ZENML_STORE_TYPE": "sql", "ZENML_STORE_URL": self.store_url}
            return made | own | {"ZENML_CONFIG_PATH": str(home / "zenml")}
        return made | {"ZENML_CONFIG_PATH": self.config}


class ZenMLServer:
    """A server on a port of its own. It can be stopped and started again on the same port.

    Args:
        root: A folder for its log and its home.
        backend: The database, which may be another server's too.
        settings: More environment variables, `ZENML_SERVER_...` for instance.
    """

    def __init__(
        self, root: Path, backend: Backend, settings: Mapping[str, str] | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = root / "zenml-server.log"
        self._server = Server(
            "the ZenML server",
            [
                *(sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app"),
                *("--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning"),
                # Else it waits for the connections that clients keep open.
                *("--timeout-graceful-shutdown", "1"),
            ],
            self.log,
            backend.environment(root) | dict(settings or {}),
            root,
        )

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._server.start(self._ready, 230)

    def stop(self) -> None:
        """End it in good order."""
        self._server.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self._server.kill()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@dataclass
class Api:
    """The server's REST API as the user `default`, for what tests set up and look at."""

    url: str
    password: str
    _token: str = field(default="", repr=False)

    def get(self, path: str, **query: str) -> Any:
        """What is at a path below `/api/v1`."""
        asked = "?" + urllib.parse.urlencode(query) if query else ""
        return self._call("GET", path + asked)

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        """Make something."""
        return self._call("POST", path, document)

    def put(self, path: str, document: Mapping[str, Any]) -> Any:
        """Change something."""
        return self._call("PUT", path, document)

    def delete(self, path: str) -> None:
        """Remove something."""
        self._call("DELETE", path)

    def items(self, path: str, **query: str) -> list[Any]:
        """Everything on all pages of a list."""
        found: list[Any] = []
        page, pages = 1, 1
        while page <= pages:
            answer = self.get(path, page=str(page), size="200", **query)
            found += answer["items"]
            page, pages = page + 1, answer["total_pages"]
        return found

    def _call(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        if not self._token:
            self._token = self._login()
        body = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        return self._send(f"/api/v1{path}", body, headers, method)

    def _login(self) -> str:
        form = urllib.parse.urlencode({"username": "default", "password": self.password})
        return str(self._send("/api/v1/login", form.encode(), {}, "POST")["access_token"])

    def _send(self, path: str, body: bytes | None, headers: dict[str, str], method: str) -> Any:
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from error
