"""Make the certificate of encrypted ports, and the bundle with which clients accept it."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.localmodal.storage.paths import StateDir, write_private

if TYPE_CHECKING:
    import trustme

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""The variables that name the bundle: for whoever uses OpenSSL, and for requests."""


def _authority(state: StateDir) -> trustme.CA:
    """Return the certificate authority of a state folder; its key never leaves it."""
    import trustme

    key, certificate = state.certificates / "key.pem", state.certificates / "authority.pem"
    if certificate.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    authority = trustme.CA(organization_name="modalrun's local Modal server")
    write_private(key, authority.private_key_pem.bytes().decode())
    write_private(certificate, authority.cert_pem.bytes().decode())
    return authority


def context(state: StateDir) -> ssl.SSLContext:
    """Return the TLS context of a server on loopback."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority(state).issue_cert("localhost", "127.0.0.1").configure_cert(made)
    return made


def variables(state: StateDir) -> dict[str, str]:
    """Return the variables with which a client's HTTPS accepts the authority.

    The bundle has the usual authorities too. A variable that names another file stays as it is.
    """
    bundle = state.certificates / "bundle.pem"
    if not bundle.exists():
        import certifi

        system = ssl.get_default_verify_paths().cafile
        texts = [_authority(state).cert_pem.bytes().decode()]
        texts += [Path(path).read_text("utf-8") for path in filter(None, (certifi.where(), system))]
        write_private(bundle, "\n".join(texts))
    path = str(bundle)
    return {name: path for name in VARIABLES if os.environ.get(name, path) == path}


def own_variables(state: StateDir) -> list[str]:
    """Return the variables that name the bundle of a state folder now."""
    bundle = str(state.certificates / "bundle.pem")
    return [name for name in VARIABLES if os.environ.get(name) == bundle]
