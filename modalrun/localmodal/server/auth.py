"""Authenticate calls with the state folder's token, or with tokens signed by its key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from modalrun.localmodal.storage.paths import write_private

_TOKEN_LIFETIME = 30 * 24 * 3600


@dataclass
class Identity:
    """The persistent identity of a state folder. `port` is the last one used, 0 for none."""

    token_id: str
    token_secret: str
    signing_key: str
    port: int = 0

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Load the identity of a state folder; create one if it is missing or damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(
                token_id=f"ak-{secrets.token_hex(11)}",
                token_secret=f"as-{secrets.token_hex(24)}",
                signing_key=secrets.token_hex(32),
            )

    def save(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self)))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class Guard:
    """Checks tokens and signs new ones."""

    def __init__(self, identity: Identity) -> None:
        self._id = identity.token_id.encode()
        self._secret = identity.token_secret.encode()
        self._key = identity.signing_key.encode()

    def _signature(self, text: str) -> str:
        return _base64(hmac.new(self._key, text.encode(), hashlib.sha256).digest())

    def allows_token(self, metadata: Mapping[str, object]) -> bool:
        """Return whether a call's metadata has the token."""
        token_id = str(metadata.get("x-modal-token-id", ""))
        secret = str(metadata.get("x-modal-token-secret", ""))
        right_id = hmac.compare_digest(token_id.encode(), self._id)
        return hmac.compare_digest(secret.encode(), self._secret) and right_id

    def allows_secret(self, secret: str) -> bool:
        """Return whether an HTTP request has the token's secret."""
        return hmac.compare_digest(secret.encode(), self._secret)

    def sign(self, subject: str) -> str:
        """Sign a token for a subject: a JWT, because the SDK reads its `exp`."""
        payload = {"sub": subject, "exp": int(time.time()) + _TOKEN_LIFETIME}
        header = _base64(b'{"alg":"HS256","typ":"JWT"}')
        body = f"{header}.{_base64(json.dumps(payload).encode())}"
        return f"{body}.{self._signature(body)}"

    def allows_signed(self, token: str, subject: str) -> bool:
        """Return whether a token is signed by us, not expired and for this subject."""
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return False
        middle = body.partition(".")[2]
        payload = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return bool(payload["sub"] == subject and payload["exp"] > time.time())
