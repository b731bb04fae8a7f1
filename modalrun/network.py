"""Whether a server is there, found out in seconds: the SDKs try an absent one for half a minute."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

CONNECT_SECONDS = 3.0
"""ZenML tries for 30 s (`zen_stores/rest_zen_store.py:4985`), Modal for almost a minute
(`modal/_utils/grpc_utils.py:428`)."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def connection_problem(url: str) -> Exception | None:
    """Why nothing can be reached at an http(s) address; None if something answers.

    Behind a proxy only the SDKs know the way, so nothing is tried then.
    """
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return None
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return error
    return None
