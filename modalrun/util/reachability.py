"""Find out within seconds whether a server answers; the SDKs try for half a minute."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

CONNECT_SECONDS = 3.0
"""ZenML tries for 30 s (`zen_stores/rest_zen_store.py:4985`), Modal for almost a minute
(`modal/_utils/grpc_utils.py:428`)."""

ASK_DOCTOR = "Check the network; 'modalrun doctor' shows what can be reached."
CHECK_SERVER = "Check the server's address and the network."
"""The same for `doctor` itself."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def connection_problem(url: str, seconds: float = CONNECT_SECONDS) -> Exception | None:
    """Return why nothing answers at an http(s) address; None if something does.

    Behind a proxy only the SDKs can connect, so nothing is tried.
    """
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return None
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), seconds).close()
    except (OSError, ValueError) as error:
        return error
    return None


@dataclass(frozen=True)
class Answer:
    """Hold the first 64 KiB of the answer to an HTTP request, with any status.

    `ahead` is how many seconds this machine's clock is ahead of the server's; None without a date.
    """

    body: bytes
    ahead: float | None


def ask(url: str, *, method: str = "GET", seconds: float = CONNECT_SECONDS) -> Answer:
    """Send one request to an http(s) address, through the environment's proxies.

    Raises:
        OSError, ValueError: There is no answer in time, or it or the address is not HTTP.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"'{url}' is not an http(s) address")
    began = time.time()
    try:
        request = Request(url, method=method)  # noqa: S310 (checked above)
        response = urlopen(request, timeout=seconds)  # noqa: S310 (checked above)
    except HTTPError as error:
        response = error
    except HTTPException as error:
        raise OSError(f"the answer is not HTTP: {error!r}") from error
    with closing(response):
        middle = (began + time.time()) / 2
        body = response.read(65_536)
        date = response.headers.get("Date")
    # The header is cut to whole seconds: on average half a second is missing.
    ahead = middle - parsedate_to_datetime(date).timestamp() - 0.5 if date else None
    return Answer(body, ahead)
