"""List the files that hold credentials, and the folders that are private as a whole.

Files of these names never go to a sandbox unless the user names them in `source_include`, or Git
tracks them. A new rule needs a pattern and a reason, nothing else.
"""

from __future__ import annotations

import codecs
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
    ".snowsql": "credentials of Snowflake",
    ".kaggle": "token of Kaggle",
    ".huggingface": "token of Hugging Face",
    ".databricks": "token of Databricks",
    ".terraform.d": "token of Terraform",
    ".ngrok2": "token of ngrok",
}
"""Folders, by the end of their path, with what is in them."""

FILES = {
    "environment variables, often secrets": ".env* .env*/ *.env *.env/ .flaskenv",
    "secrets": (
        "secret.json secret.toml secret.yaml secret.yml"
        " secrets.json secrets.toml secrets.yaml secrets.yml"
        " .secrets .secrets/ .secrets.json .secrets.toml .secrets.yaml .secrets.yml"
    ),
    "credentials": (
        "credentials .credentials *credentials.csv credentials.ini credentials.json"
        " credentials.toml credentials.yaml credentials.yml .credentials.json"
    ),
    "key or certificate": "*.pem",
    "key": "*.key *.p8 *.pk8",
    "key store": "*.p12 *.pfx *.jks *.keystore cwallet.sso",
    "key of SSH": (
        "id_rsa* id_dsa* id_ecdsa* id_ed25519* id_xmss* ssh_host_*_key deploy_key *.ppk"
    ),
    "key of GnuPG": "private.gpg secring.gpg",
    "key of age, or what it encrypts": "*.age age/keys.txt",
    "key of a VPN": "*.ovpn wg0.conf wg1.conf wg-*.conf wireguard/*.conf",
    "key of Kerberos": "*.keytab krb5cc_*",
    "passwords": (
        ".netrc _netrc .htpasswd .authinfo* .wgetrc .curlrc .smbcredentials *.kdbx *.kdb *.psafe3"
    ),
    "passwords of a database": (
        ".pgpass pgpass.conf .pg_service.conf .my.cnf .mylogin.cnf .dbt/profiles.yml"
    ),
    "passwords of Git": ".git-credentials",
    "addresses of Git, often with a token": ".git/config",
    "passwords of an editor's connections": "sftp.json datasources*.xml",
    "password of Ansible Vault": ".vault_pass* .vault-pass* vault_pass.txt",
    "history of commands, often with passwords": ".*_history .zhistory .histfile",
    "tokens": "auth.json token.json token.pickle stored_tokens oauth_creds.json",
    "token of Modal": ".modal.toml modal.toml",
    "token of a package index": (
        ".pypirc .npmrc .yarnrc.yml pypoetry/auth.toml .m2/settings.xml .m2/settings-security.xml"
        " .gradle/gradle.properties nuget.config"
    ),
    "token of Hugging Face": "huggingface/token",
    "token of Kaggle": "kaggle.json",
    "token of Databricks": ".databrickscfg",
    "token of Vault": ".vault-token",
    "token of GitLab": "glab-cli/config.yml",
    "token of ngrok": "ngrok/ngrok.yml",
    "credentials of AWS": "rootkey.csv *accesskeys*.csv .s3cfg .passwd-s3fs",
    "credentials of Google": (
        ".boto client_secret*.json application_default_credentials.json adc.json"
    ),
    "credentials of a cloud": (
        "rclone.conf .mc/config.json .fly/config.yml doctl/config.yaml .aliyun/config.json"
        " .ossutilconfig hcloud/cli.toml"
    ),
    "credentials of DVC's remotes": ".dvc/config.local",
    "credentials of Kubernetes": (
        "kubeconfig kubeconfig.yaml kubeconfig.yml *.kubeconfig kube/config k3s.yaml"
    ),
    "credentials of a container registry": (
        ".dockercfg .dockerconfigjson .docker/config.json docker/config.json"
    ),
    "token of Terraform": ".terraformrc",
    "variables of Terraform, often secrets": "*.tfvars *.tfvars.json",
    "state of Terraform, with secrets": "*.tfstate*",
}
"""Files, by the end of their path, below what is in them. A name that ends in "/" is a folder's."""

HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist")
"""Names that fit a pattern, of files that show which variables there are, without values."""

BACKUP = re.compile(r"(?:~|\.(?:bak|backup|old|orig|save))$")
"""What a copy of a file has after its name."""

DEPLOYMENT_FILE = "deployment file, with environment variables"
"""The reason that is no credential file's: modalrun itself has written the file."""

CONTENTS = (
    (
        (b"-----begin",),
        # Not in the midst of a sentence, and not quoted for itself.
        rb"(?:\A|[\n\r\"'=:|>]|\\n)[ \t]*-----begin [a-z0-9 ]{0,40}"
        rb"(?:private key(?: block)?|openvpn static key v1)-----(?![\"'`])",
        "private key",
    ),
    (
        (b"ls0tls1crudjti",),
        # PRIVATE, RSA, EC, OPENSSH, ENCRYPTED and DSA, after "-----BEGIN" and one more space.
        rb"ls0tls1crudjti(?:bquklw|bsu0eg|bfqyb|bpuevo|bftkns|beu0eg)",
        "private key in base64",
    ),
    ((b"begin ssh2",), rb"---- begin ssh2 (?:encrypted )?private key ----", "key of SSH"),
    ((b"putty-user",), rb"(?:\A|\n)\s?putty-user-key-file", "key of PuTTY"),
    ((b"age-secret-key-",), rb"age-secret-key-(?:pq-)?1[a-z0-9]{6}", "key of age"),
    ((b"privatekey",), rb"(?:\A|\n)[ \t]*privatekey[ \t]*=[ \t]*[a-z0-9+/]{43}=", "key of a VPN"),
    (
        (b"type",),
        rb"type\\?\"\s*:\s*\\?\"(?:service_account|authorized_user)\\?\"",
        "credentials of Google Cloud",
    ),
    (
        (b"secret",),
        rb"client_?secret\\?\"\s*:\s*\\?\"[^\"\\\s<>${}]{8,512}\\?\"",
        "credentials of OAuth",
    ),
    ((b"refresh_token",), rb"\"refresh_token\"\s*:\s*\"[^\"\\\s<>${}]{8}", "token of OAuth"),
    (
        (b"secret",),
        rb"secret[_ ]?access[_ ]?key[\"']?\s*[=:]\s*[\"']?[a-z0-9/+]{8}",
        "credentials of AWS",
    ),
    ((b"akia",), rb"akia[a-z0-9]{16},[a-z0-9/+]{40}", "credentials of AWS"),
    (
        (b"clusters", b"users"),
        rb"kind[\"']?[ \t]*:[ \t]*[\"']?config(?![\w-])",
        "credentials of Kubernetes",
    ),
    ((b'"auths"',), rb"\"auths\"\s*:\s*\{\s*\"", "credentials of a container registry"),
    ((b"token_secret",), rb"token_secret[\"']?\s*[=:]\s*[\"']?as-[a-z0-9]", "token of Modal"),
    ((b"accountkey=",), rb"accountkey=[a-z0-9+/]{86}==", "key of Azure"),
    ((b"ghp_",), rb"\bghp_[a-z0-9]{36}", "token of GitHub"),
    ((b"github_pat_",), rb"\bgithub_pat_[a-z0-9_]{60}", "token of GitHub"),
    ((b"glpat-",), rb"\bglpat-[a-z0-9_-]{20}", "token of GitLab"),
    ((b"hf_",), rb"\bhf_[a-z]{34}\b", "token of Hugging Face"),
    ((b"sk-ant-",), rb"\bsk-ant-[a-z0-9_-]{32}", "key of Anthropic"),
    ((b"sk-proj-",), rb"\bsk-proj-[a-z0-9_-]{32}", "key of OpenAI"),
    (
        (b"machine", b"password"),
        rb"machine\s+\S{1,256}\s+login\s+\S{1,256}\s+password\s+\S",
        "passwords",
    ),
    (
        (b"index",),
        rb"index[-_]url[ \t=]{1,8}[\"']?https?://[^/\s:@$]{0,256}:[^/\s:@$<{]{1,1024}@",
        "password of a package index",
    ),
    (
        (b"cleartextpassword",),
        rb"cleartextpassword\"\s+value=\"[^\"%]",
        "password of a package index",
    ),
    (
        (b"modalrun-deployment",),
        rb"\A\s*\{\s*\"format\"\s*:\s*\"modalrun-deployment\"",
        DEPLOYMENT_FILE,
    ),
)
"""What in a file shows it, whatever its name: texts that it has, a pattern, and the reason.

Both see the file in lower case. The texts are found fast; each pattern takes linear time.
"""

CONTENT_BYTES = 1_000_000
"""Bytes of a file, from its beginning, that are looked at."""

SOURCE_CODE = (
    ".py .pyi .pyx .ipynb .md .mdx .rst .tex .htm .html .css .js .jsx .mjs .ts .tsx .vue .go .rs"
    " .c .cc .cpp .cu .cuh .h .hpp .java .kt .scala .cs .swift .rb .php .pl .lua .r .rmd .jl .sql"
    " .patch .diff"
)
"""Files that may speak of a key, in a test or an example: what is in them is not looked at."""


def credential_reason(path: PurePath) -> str | None:
    """Return what makes a file one that holds credentials, by its path; None if nothing does."""
    if path.name.casefold() in HARMLESS:
        path = path.with_name("harmless")
    text = BACKUP.sub("", path.as_posix().casefold())
    if not _any_pattern().search(text):
        return None
    return next(reason for pattern, reason in _patterns() if pattern.search(text))


def is_source_code(path: PurePath) -> bool:
    """Return whether a file, by its name, is source code, whose content is not looked at."""
    return path.suffix.casefold() in SOURCE_CODE.split()


def credential_content(beginning: bytes) -> str | None:
    """Return what makes a file one that holds credentials, by its first `CONTENT_BYTES`."""
    text = beginning
    if b"\0" in text[:4]:
        # UTF-16 is ASCII with zero bytes, for what is looked for.
        text = text.replace(b"\0", b"")
    text = text.lstrip(codecs.BOM_UTF8 + codecs.BOM_UTF16).lower()
    found = (
        reason
        for texts, pattern, reason in CONTENTS
        if all(known in text for known in texts) and re.search(pattern, text)
    )
    return next(found, None)


def described(reason: str) -> str:
    """Say what a file is that the reason keeps here."""
    return reason if reason == DEPLOYMENT_FILE else f"credential file ({reason})"


def refuse_private_folder(folder: Path, what: str, hint: str) -> None:
    """Refuse to upload the home folder, a folder above it, or one that holds credentials.

    Args:
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
    return [
        *((_pattern(name), reason) for name, reason in FOLDERS.items()),
        *((_file(name), reason) for reason, names in FILES.items() for name in names.split()),
    ]


@functools.cache
def _any_pattern() -> re.Pattern[str]:
    return re.compile("|".join(pattern.pattern for pattern, _ in _patterns()))


def _file(name: str) -> re.Pattern[str]:
    return _pattern(name[:-1], "/") if name.endswith("/") else _pattern(name, "$")


def _pattern(name: str, end: str = "(?:/|$)") -> re.Pattern[str]:
    """Make a pattern of consecutive parts of a path; `*` stays inside a part."""
    text = "[^/]*".join(re.escape(part) for part in name.split("*"))
    return re.compile(f"(?:^|/){text}{end}")
