"""Send requests to a ZenML server with the user's credentials, without importing ZenML."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from functools import cached_property
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
import urllib3
from requests.adapters import HTTPAdapter

from modalrun.errors import UsageError
from modalrun.zenml_api import config_files
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.rest.settings import ServerSettings, Unusual, server_settings
from modalrun.zenml_api.retry import patient_adapter, refusal

_TOKENS = ".modalrun.tokens"
"""A file in ZenML's configuration folder, for this user only: the tokens that were got with keys.

Logging in takes 0.7 s, and a key from the environment is not kept by ZenML."""

_LEEWAY = 60.0
"""Seconds before its end for which a token is not used any more."""


class RefusedError(Exception):
    """Tell that the server refuses a request.

    Attributes:
        status: The HTTP status, from 400.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class MissingError(KeyError):
    """Tell that what was asked for, or is named in a request, does not exist."""


class Session:
    """A connection to a ZenML server of the installed version, kept open between requests.

    `get`, `post` and `put` take a path below `/api/v1` and return the decoded answer. They log in
    when it is needed, and wait out a server's trouble as `retry.open_store` says. They raise

        Unusual: Only ZenML's own client knows what to do. Nothing was changed, unless it was the
            answer that could not be read.
        MissingError: What the path or the body names does not exist (404).
        RefusedError: Any other refusal; 403 is ZenML's IllegalOperationError, 409 its
            EntityExistsError.
        AuthenticationError, ConnectionLostError, ServerError: As `errors.translated` says.

    `connect` makes one.

    Attributes:
        settings: Where the server is.
    """

    def __init__(
        self, settings: ServerSettings, folder: Path, *, adapter: HTTPAdapter | None = None
    ) -> None:
        """Prepare a session; nothing is sent.

        Args:
            folder: The user's own configuration folder of ZenML, where tokens are kept.
            adapter: What sends the requests; by default it waits out a server's trouble.
        """
        self.settings = settings
        self._tokens = folder / _TOKENS
        self._http = requests.Session()
        self._http.mount(f"{settings.url}/", adapter or patient_adapter())
        self._http.verify = settings.verify
        self._http.headers["User-Agent"] = f"zenml/{version('zenml')}"
        if settings.verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if settings.token:
            self._use(settings.token)
        elif self._key and (kept := self._kept().get(self._key)):
            self._use(kept["token"])

    def get(self, path: str, **query: Any) -> Any:
        """Read; `query` has the parameters, of which None is left out."""
        return self._request("GET", path, params=query)

    def post(self, path: str, body: Any) -> Any:
        """Create; `body` is encoded as JSON."""
        return self._request("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        """Change; `body` is encoded as JSON."""
        return self._request("PUT", path, json=body)

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the server says of itself.

        Raises:
            UsageError: It is no ZenML server.
            Unusual: It does not describe itself as other servers do.
        """
        try:
            found = self.get("/info")
        except MissingError:
            raise UsageError(
                f"There is no ZenML server at {self.settings.url}: it has no /api/v1/info.",
                hint="Check the address, which 'zenml login' or ZENML_STORE_URL has set.",
            ) from None
        except RefusedError as error:
            raise Unusual(f"the server does not describe itself: {error}") from error
        if not isinstance(found, dict):
            raise Unusual(f"the server describes itself as {found!r}")
        return found

    @cached_property
    def project(self) -> dict[str, Any]:
        """The active project: the configured one, else the user's default, else the only one.

        Raises:
            Unusual: ZenML's client would choose another one, and warn.
        """
        chosen = config_files.active("project")
        if chosen is None:
            user = self.get("/current-user")
            chosen = user["body"].get("default_project_id")
        if chosen is None:
            page = self.get("/projects", size=2)
            if page["total"] != 1:
                raise Unusual("no project is active")
            return dict(page["items"][0])
        try:
            return dict(self.get(f"/projects/{chosen}"))
        except (MissingError, RefusedError) as error:
            raise Unusual(f"the active project can't be used: {error}") from error

    def run_page(self, run_id: str, project_id: str) -> str:
        """Return the address of a run's page on ZenML's dashboard (`utils/dashboard_utils.py`)."""
        if self.info["deployment_type"] == "cloud":
            return f"{self.info['dashboard_url']}/projects/{project_id}/runs/{run_id}"
        active = self.project
        project = active if active["id"] == project_id else self.get(f"/projects/{project_id}")
        base = self.info.get("server_url") or self.settings.url
        return f"{base}/projects/{project['name']}/runs/{run_id}"

    def _request(self, method: str, path: str, **how: Any) -> Any:
        answer = self._send(method, path, **how)
        if answer.status_code == HTTPStatus.UNAUTHORIZED and self._login():
            answer = self._send(method, path, **how)
        return _content(answer)

    def _send(self, method: str, path: str, **how: Any) -> requests.Response:
        # The server answers a repeated request as the first one.
        headers = {"Idempotency-Key": str(uuid4())}
        url = f"{self.settings.url}/api/v1{path}"
        with translated():
            return self._http.request(
                method, url, headers=headers, timeout=self.settings.timeout, **how
            )

    def _use(self, token: str) -> None:
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _login(self) -> bool:
        """Get a new token; return whether there is something to log in with."""
        form = self.settings.login
        if form is None:
            return False
        self._http.headers.pop("Authorization", None)
        found = _content(self._send("POST", "/login", data=form))
        token = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str):
            raise Unusual("the server answers a login with something else than a token")
        self._use(token)
        self._keep(token, found.get("expires_in"))
        return True

    @cached_property
    def _key(self) -> str | None:
        """What a kept token is found by; None where none is kept: a password could be guessed."""
        form = self.settings.login or {}
        if form.get("grant_type") == "password" or not form:
            return None
        if config_files.is_true(config_files.DISABLE_CREDENTIALS):
            return None
        return hashlib.sha256(f"{self.settings.url} {form['password']}".encode()).hexdigest()

    def _kept(self) -> dict[str, Any]:
        """Return what is kept of tokens that are still valid; {} if the file is damaged."""
        damage = (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError)
        with contextlib.suppress(*damage):
            soon = time.time() + _LEEWAY
            return {
                key: one
                for key, one in json.loads(self._tokens.read_bytes()).items()
                if isinstance(one["token"], str) and (one["until"] is None or soon < one["until"])
            }
        return {}

    def _keep(self, token: str, seconds: float | None) -> None:
        """Keep a token for the next command; another process may do so at the same time."""
        if self._key is None:
            return
        until = time.time() + seconds if seconds else None
        kept = {**self._kept(), self._key: {"token": token, "until": until}}
        # A folder that can't be written costs the login.
        with contextlib.suppress(OSError):
            self._tokens.parent.mkdir(parents=True, exist_ok=True)
            # Only its owner may read a temporary file.
            file, name = tempfile.mkstemp(dir=self._tokens.parent, prefix=_TOKENS)
            try:
                with os.fdopen(file, "w", encoding="utf-8") as stream:
                    json.dump(kept, stream)
                Path(name).replace(self._tokens)
            finally:
                # The disk is full.
                Path(name).unlink(missing_ok=True)


def connect(folder: Path) -> Session:
    """Return a session with the configured server, if it is of the installed ZenML's version.

    Args:
        folder: The user's own configuration folder of ZenML (`config_files.folder()` before
            `process.protected_configuration` replaces it by a copy).

    Raises:
        Unusual: There is no server, or only ZenML's own client can use it.
        UsageError: There is something else at its address.
        ConnectionLostError, ServerError: As for a request.
    """
    session = Session(server_settings(), folder)
    if (found := session.info.get("version")) != version("zenml"):
        raise Unusual(f"the server is of version {found}")
    return session


def _content(answer: requests.Response) -> Any:
    """Return what an answer holds, or raise what it tells of."""
    status = int(answer.status_code)
    if status == HTTPStatus.UNAUTHORIZED:
        # ZenML's own client may know other ways to log in, and words the error.
        raise Unusual("the server refuses the credentials")
    if status == HTTPStatus.NOT_FOUND:
        raise MissingError(refusal(answer))
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RefusedError(refusal(answer), status)
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        raise Unusual(f"the server answers with status {status}")
    try:
        return answer.json()
    except (requests.exceptions.JSONDecodeError, RecursionError) as error:
        raise Unusual("the server's answer is not JSON") from error
