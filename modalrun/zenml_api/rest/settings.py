"""Find ZenML's server and the credentials for it, as ZenML's own client does.

Read from ZenML 0.98.0 (`config/global_config.py`, `login/credentials_store.py`,
`zen_stores/rest_zen_store.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from modalrun.zenml_api import config_files

_OF_PRO = "ZENPROKEY_"
"""How the API keys of ZenML Pro begin; logging in with one takes requests to other servers."""


class Unusual(Exception):
    """Tell that only ZenML's own client can do this; the message says why, to developers."""


@dataclass(frozen=True)
class ServerSettings:
    """Where a ZenML server is, and what its user has to log in with.

    Attributes:
        url: Its address, without a slash at the end.
        verify: Whether to check its certificate, or a file of certificates to check it with.
        timeout: Seconds for one answer.
        login: The form that a new token is requested with; None if there is nothing to log in with.
        token: A token that is valid, as far as is known here.
    """

    url: str
    verify: bool | str = True
    timeout: float = 30.0
    login: dict[str, str] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def server_settings() -> ServerSettings:
    """Return the settings of the configured server.

    Raises:
        Unusual: ZenML uses no server, or one in a way that only its own client knows.
    """
    if os.environ.get("ZENML_SERVER") or config_files.is_true("ZENML_CONTAINER"):
        raise Unusual("this process is ZenML's own server, or in an image of ZenML's")
    store = _store()
    url = str(store.get("url") or "").rstrip("/")
    if store.get("type", "rest") != "rest" or not url.startswith(("http://", "https://")):
        raise Unusual("ZenML uses no server")
    stored = config_files.credentials(url)
    given = {name: store.get(name) for name in ("api_key", "username", "password")}
    token = store.get("api_token")
    if given["api_key"] or (given["username"] is not None and given["password"] is not None):
        token = None
    elif token is None:
        given, token = stored, _valid(stored.get("api_token"))
    return ServerSettings(
        url,
        verify=_verify(store.get("verify_ssl", True)),
        timeout=float(store.get("http_timeout") or 30),
        login=_login(given),
        token=token,
    )


def _store() -> dict[str, Any]:
    """Return the configuration of the store: variables complete the file's, or replace all of it.

    They replace it if they say which store it is.
    """
    prefix = config_files.STORE_PREFIX
    given = {
        name.removeprefix(prefix).lower(): value
        for name, value in os.environ.items()
        if name.startswith(prefix)
    }
    if given.keys() & {"type", "url"}:
        return given
    store = config_files.configuration().get("store")
    return {**(store if isinstance(store, dict) else {}), **given}


def _verify(given: Any) -> bool | str:
    text = str(given)
    if text.lower() in config_files.TRUE | {"t", "on"}:
        return True
    if text.lower() in {"0", "n", "no", "false", "f", "off"}:
        return False
    if Path(text).is_file():
        return text
    raise Unusual("the certificates are given by their text")


def _login(given: dict[str, Any]) -> dict[str, str] | None:
    if key := given.get("api_key"):
        if str(key).startswith(_OF_PRO):
            raise Unusual("the API key is one of ZenML Pro")
        return {"grant_type": "zenml-api-key", "password": str(key)}
    name, password = given.get("username"), given.get("password")
    if name is None or password is None:
        return None
    return {"grant_type": "password", "username": str(name), "password": str(password)}


def _valid(token: Any) -> str | None:
    """Return a stored token unless it has expired, or is about to."""
    if not isinstance(token, dict) or "access_token" not in token:
        return None
    if (until := token.get("expires_at")) is not None:
        # Python 3.10 reads no "Z".
        moment = datetime.fromisoformat(str(until).replace("Z", "+00:00"))
        # The file has times in UTC.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        if moment - timedelta(seconds=int(token.get("leeway") or 0)) < datetime.now(timezone.utc):
            return None
    return str(token["access_token"])
