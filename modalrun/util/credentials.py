"""List the files that hold credentials, and the folders that are private as a whole.

Files of these names never go to a sandbox unless the user names them in `source_include`, or Git
tracks them. A new rule needs a pattern and a reason, nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path, PurePath

from modalrun.errors import UsageError

FOLDERS = {
    ".ssh": "keys of SSH",
    ".gnupg": "keys of GnuPG",
    ".password-store": "passwords of pass",
    ".aws": "credentials of AWS",
    ".azure": "credentials of Azure",
    ".oci": "credentials of Oracle Cloud",
    ".config/gcloud": "credentials of Google Cloud",
    ".config/gh": "token of GitHub",
    ".config/rclone": "credentials of rclone",
    ".config/zenml": "token of ZenML",
    ".zenconfig": "token of ZenML",
    ".kube": "credentials of Kubernetes",
    ".snowflake": "credentials of Snowflake",
    ".kaggle": "token of Kaggle",
    ".huggingface": "token of Hugging Face",
    ".databricks": "token of Databricks",
    ".terraform.d": "token of Terraform",
}
"""Folders, by the end of their path, with what is in them."""

FILES = {
    ".env*": "environment variables, often secrets",
    "*.env": "environment variables, often secrets",
    "*.pem": "key or certificate",
    "*.key": "key",
    "*.p12": "key store",
    "*.pfx": "key store",
    "*.jks": "key store",
    "*.keystore": "key store",
    "*.ppk": "key of PuTTY",
    "*.kdbx": "passwords of KeePass",
    "id_rsa*": "key of SSH",
    "id_dsa*": "key of SSH",
    "id_ecdsa*": "key of SSH",
    "id_ed25519*": "key of SSH",
    ".modal.toml": "token of Modal",
    ".netrc": "passwords",
    "_netrc": "passwords",
    ".pypirc": "token of PyPI",
    ".npmrc": "token of npm",
    ".yarnrc.yml": "token of Yarn",
    ".git-credentials": "passwords of Git",
    ".pgpass": "passwords of PostgreSQL",
    ".my.cnf": "passwords of MySQL",
    ".htpasswd": "passwords",
    ".boto": "credentials of Google Cloud or AWS",
    ".s3cfg": "credentials of AWS",
    "rootkey.csv": "credentials of AWS",
    "*accesskeys*.csv": "credentials of AWS",
    ".dvc/config.local": "credentials of DVC's remotes",
    ".vault-token": "token of Vault",
    ".databrickscfg": "token of Databricks",
    ".terraformrc": "token of Terraform",
    "*.tfstate*": "state of Terraform, with secrets",
    ".dockercfg": "credentials of a container registry",
    ".docker/config.json": "credentials of container registries",
    ".cache/huggingface/token": "token of Hugging Face",
    "kubeconfig": "credentials of Kubernetes",
    "kaggle.json": "token of Kaggle",
    "credentials.json": "credentials of Google",
    "client_secret*.json": "credentials of Google",
    "application_default_credentials.json": "credentials of Google Cloud",
    "secrets.toml": "secrets",
    "secrets.yaml": "secrets",
    "secrets.yml": "secrets",
    "secrets.json": "secrets",
}
"""Files, by the end of their path, with what is in them."""

HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist")
"""Names that fit a pattern, of files that show which variables there are, without values."""

CONTENTS = {
    rb"\A\s*-----BEGIN [A-Z ]*PRIVATE KEY-----": "private key",
    rb"\A\s*PuTTY-User-Key-File": "key of PuTTY",
    rb'\A(?:\xef\xbb\xbf)?\s*\{[^\0]*"type"\s*:\s*"(?:service_account|authorized_user)"': (
        "credentials of Google Cloud"
    ),
    rb'\A\s*\{\s*"format"\s*:\s*"modalrun-deployment"': "deployment file: environment variables",
}
"""What the beginning of a file shows, whatever its name."""

CONTENT_BYTES = 16_384
"""Bytes of a file that are looked at."""


def credential_reason(path: PurePath) -> str | None:
    """Return what makes a file one that holds credentials, by its path; None if nothing does."""
    if path.name.casefold() in HARMLESS:
        path = path.parent
    text = path.as_posix().casefold()
    if not _any_pattern().search(text):
        return None
    return next(reason for pattern, reason in _patterns() if pattern.search(text))


def credential_content(beginning: bytes) -> str | None:
    """Return what makes a file one that holds credentials, by its first `CONTENT_BYTES`."""
    found = (reason for pattern, reason in CONTENTS.items() if re.search(pattern, beginning))
    return next(found, None)


def refuse_private_folder(folder: Path, what: str, hint: str) -> None:
    """Refuse to upload the home folder, a folder above it, or one that holds credentials.

    Args:
        folder: The folder that would be uploaded.
        what: What it is for, for the message: "The source root".
        hint: What the user can do.

    Raises:
        UsageError: It is such a folder.
    """
    real = folder.resolve()
    homes = _homes()
    if real in homes and real.parent != real:
        raise UsageError(f"{what} {folder} is your home folder: it holds private files.", hint=hint)
    if real.parent == real or any(home.is_relative_to(real) for home in homes):
        raise UsageError(f"{what} {folder} has your home folder in it.", hint=hint)
    text = real.as_posix().casefold()
    for name, reason in FOLDERS.items():
        if _pattern(name).search(text):
            raise UsageError(f"{what} {folder} is a private folder: {reason}.", hint=hint)


def _homes() -> list[Path]:
    """Return the user's home folder as `HOME` has it, and as the user database has it."""
    import pwd

    homes = []
    with contextlib.suppress(RuntimeError):
        homes.append(Path.home().resolve())
    with contextlib.suppress(KeyError):
        homes.append(Path(pwd.getpwuid(os.getuid()).pw_dir).resolve())
    return homes


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(name), reason) for name, reason in {**FOLDERS, **FILES}.items()]


@functools.cache
def _any_pattern() -> re.Pattern[str]:
    return re.compile("|".join(pattern.pattern for pattern, _ in _patterns()))


def _pattern(name: str) -> re.Pattern[str]:
    """Make a pattern of consecutive parts of a path; `*` stays inside a part."""
    text = "[^/]*".join(re.escape(part) for part in name.split("*"))
    return re.compile(f"(?:^|/){text}(?:/|$)")
