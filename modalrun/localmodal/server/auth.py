"""Authenticate calls with the server's token, or with tokens signed by its key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping

_TOKEN_LIFETIME = 30 * 24 * 3600


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Guard:
    """Checks tokens and signs new ones, such as those in the URLs of this server.

    Token and key are new in each server and die with it, so that whoever gets hold of an old one,
    or of the port of a server that has ended, can do nothing with it.
    """

    def __init__(self) -> None:
        self.url = ""
        self.token_id = f"ak-{secrets.token_hex(11)}"
        self.token_secret = f"as-{secrets.token_hex(24)}"
        self._key = secrets.token_bytes(32)

    def _signature(self, text: str) -> str:
        return _base64(hmac.new(self._key, text.encode(), hashlib.sha256).digest())

    def allows_token(self, metadata: Mapping[str, object]) -> bool:
        """Return whether a call's metadata has the token."""
        token_id = str(metadata.get("x-modal-token-id", ""))
        secret = str(metadata.get("x-modal-token-secret", ""))
        right_id = hmac.compare_digest(token_id.encode(), self.token_id.encode())
        return hmac.compare_digest(secret.encode(), self.token_secret.encode()) and right_id

    def sign(self, subject: str) -> str:
        """Sign a token for a subject: a JWT, because the SDK reads its `exp`."""
        payload = {"sub": subject, "exp": int(time.time()) + _TOKEN_LIFETIME}
        header = _base64(b'{"alg":"HS256","typ":"JWT"}')
        body = f"{header}.{_base64(json.dumps(payload).encode())}"
        return f"{body}.{self._signature(body)}"

    def signed_subject(self, token: str) -> str | None:
        """Return the subject of a token; None unless it is signed by us and not expired."""
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return None
        middle = body.partition(".")[2]
        payload = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return str(payload["sub"]) if payload["exp"] > time.time() else None
