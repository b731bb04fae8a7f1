"""A source tree takes no credential file along, known by its name or by what is in it."""

from __future__ import annotations

import base64
import json
import re
import time
import zipfile
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.plan import deployment_file
from modalrun.plan.deployment import Deployment
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.stack import StackDescription
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.util.credentials import CONTENT_BYTES, credential_content
from modalrun.util.credentials import CONTENTS as CONTENT_RULES
from modalrun.util.package_archive import write_archive
from tests.source_trees import git, names, selected, write

pytestmark = pytest.mark.usefixtures("no_surrounding_repository")

CREDENTIALS = [
    *(".env", ".env.production", ".envrc", "prod.env", "conf/.ENV.local", "cert.pem", "a/b.key"),
    *("id_rsa", "keys/id_ed25519", ".ssh/config", ".aws/credentials", ".modal.toml", ".netrc"),
    *(".pypirc", ".config/gcloud/x.db", ".config/zenml/config.yaml", ".kube/config"),
    *("sub/sftp.json", "sub/dataSources.xml", "sub/dataSources.local.xml"),
    *(".docker/config.json", ".git-credentials", ".npmrc", "store.p12", "sub/.aws/config"),
]
MORE_CREDENTIALS = [
    *(".config/git/credentials", ".cargo/credentials", ".cargo/credentials.toml", "credentials"),
    *(".gem/credentials", "aws/credentials", "credentials.csv", "me_accessKeys.csv", "rootkey.csv"),
    *(".passwd-s3fs", ".dockerconfigjson", "docker/config.json", "containers/auth.json"),
    *(
        ".composer/auth.json",
        "auth.json",
        "kube/config",
        "k3s.yaml",
        "prod.tfvars",
        ".secrets.toml",
    ),
    *(".secrets", "secret.yaml", "secret.yml", "secret.json", "secrets.json", ".flaskenv"),
    *(".dbt/profiles.yml", ".snowflake/x", ".snowsql/config", ".mylogin.cnf", ".my.cnf"),
    *("pgpass.conf", ".pg_service.conf", ".authinfo", ".authinfo.gpg", "me.keytab", "krb5cc_1000"),
    *("key.p8", "key.pk8", "private.gpg", "secring.gpg", "ssh_host_ed25519_key", "id_xmss"),
    *("deploy_key", "office.ovpn", "wg0.conf", "key.age", "sops/age/keys.txt", ".vault_pass"),
    *("cwallet.sso", "huggingface/token", "stored_tokens", "modal.toml", "token.json"),
    *("token.pickle", ".m2/settings.xml", "NuGet.Config", "pypoetry/auth.toml", "rclone.conf"),
    *(".mc/config.json", ".fly/config.yml", "doctl/config.yaml", ".codex/auth.json"),
    *(".claude/.credentials.json", ".gemini/oauth_creds.json", ".ngrok2/ngrok.yml"),
    *(".dvc/config.local", ".wgetrc", ".curlrc", ".bash_history", ".python_history", "a/.env/x"),
    *(".netrc~", "credentials.json.bak", "old/.pypirc.orig", "server.key.old"),
]
SERVICE_ACCOUNT = json.dumps({"type": "service_account", "private_key": "-----BEGIN"}, indent=2)
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
AWS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CONTENTS = [
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY\n",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE\n",
    f"Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n{PRIVATE_KEY}",
    CERTIFICATE * 200 + PRIVATE_KEY,
    f"# the key of staging\r\n\r\n{PRIVATE_KEY}",
    f"tls:\n  key: |\n    {PRIVATE_KEY}",
    f"<key>\n{PRIVATE_KEY}</key>",
    "KEY='-----BEGIN PRIVATE KEY-----\\nMIIE\\n'",
    "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nabc\n",
    "PuTTY-User-Key-File-3: ssh-ed25519\n",
    "-----BEGIN OpenVPN Static key V1-----\nabc\n",
    f"[Interface]\nPrivateKey = {'a' * 43}=\n",
    SERVICE_ACCOUNT,
    json.dumps({"a": "x" * 50_000, "type": "service_account", "private_key": "x"}),
    json.dumps([{"client_id": "x", "refresh_token": "x", "type": "authorized_user"}]),
    json.dumps({"gcp": json.dumps({"type": "service_account"})}),
    "# created: today\nAGE-SECRET-KEY-1QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L\n",
    f"[default]\naws_access_key_id=AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {AWS_KEY}\n",
    f"export AWS_SECRET_ACCESS_KEY='{AWS_KEY}'\n",
    json.dumps({"Credentials": {"SecretAccessKey": AWS_KEY}}),
    f"Access key ID,Secret access key\nAKIAIOSFODNN7EXAMPLE,{AWS_KEY}\n",
    "apiVersion: v1\nclusters: []\nkind: Config\nusers:\n- name: me\n  user: {token: abc}\n",
    json.dumps({"kind": "Config", "clusters": [], "users": [], "current-context": "x"}),
    json.dumps({"installed": {"client_id": "x", "client_secret": "GOCSPX-abcdefgh"}}),
    json.dumps({"token": "x", "refresh_token": "1//0abcdefgh"}),
    json.dumps({"clientId": "x", "clientSecret": "a~bcdefghijk"}),
    json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}),
    '[default]\ntoken_id = "ak-abc"\ntoken_secret = "as-abc"\n',
    f"export MODAL_TOKEN_SECRET=as-{'a' * 22}\n",
    *(
        base64.b64encode(f"-----BEGIN {kind}PRIVATE KEY-----\nMIIE\n".encode()).decode()
        for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA ")
    ),
    f"AccountName=a;AccountKey={'a' * 86}==;EndpointSuffix=x",
    f"token: ghp_{'a1' * 18}\npat: github_pat_{'a_' * 41}\n",
    f"{{'gitlab': 'glpat-{'a1' * 10}'}}",
    f"HF={'hf_' + 'aB' * 17}\n",
    f"a,sk-ant-api03-{'a-' * 40}\nb,x\n",
    f"OPENAI=sk-proj-{'a_' * 40}\n",
    "machine host\n  login me\n  password secret\n",
    "[global]\nindex-url = https://me:secret@host/simple\n",
]
HARMLESS_CONTENTS = [
    base64.b64encode(f"{CERTIFICATE}-----BEGIN PUBLIC KEY-----".encode()).decode(),
    base64.b64encode(b"-----BEGIN PUBLIC KEY-----").decode(),
    "The machine learning login takes a password. hf_transfer ghp_... sk-ant- glpat-",
    CERTIFICATE,
    "-----BEGIN PUBLIC KEY-----\nMIIB\n",
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ\n",
    "The file has to begin with -----BEGIN PRIVATE KEY-----, or `-----BEGIN PRIVATE KEY-----`.",
    json.dumps({"text": "They look for '-----BEGIN PRIVATE KEY-----' in files."}),
    "rule = '-----BEGIN[ A-Z]*PRIVATE KEY-----'\n",
    json.dumps({"members": ["serviceAccount:x"], "kind": "service_account"}),
    json.dumps({"client_secret": {"type": "string"}, "refresh_token": None}),
    '{"client_secret": "${CLIENT_SECRET}", "refresh_token": "<yours>"}',
    "environment:\n  AWS_SECRET_ACCESS_KEY: ${AWS_SECRET_ACCESS_KEY}\n",
    "aws_secret_access_key = <your key>\naws_secret_access_key =\n",
    "apiVersion: skaffold/v4beta7\nkind: Config\nbuild: {}\n",
    "kind: ConfigMap\nclusters: []\nusers: []\n",
    "--index-url https://host/simple\n--extra-index-url https://${USER}:${TOKEN}@host/simple\n",
]


def test_credential_files_never_go(root: Path) -> None:
    write(root, dict.fromkeys(CREDENTIALS, "secret"))
    write(root, {"account.json": SERVICE_ACCOUNT, "deploy": PRIVATE_KEY, "other.json": '{"a": 1}'})
    tree = selected(root)
    assert names(tree) == ["other.json", "training.py"]
    assert tree.credentials == len(CREDENTIALS) + 2
    assert all(str(rule).startswith("credential file (") for rule in tree.left_out.values())
    assert f"{tree.credentials} credential files)" in tree.described()
    assert ("(2 untracked; left out: " in tree.described()) == tree.in_git


def test_what_only_looks_like_one_goes(root: Path) -> None:
    files = [".env.example", "environment.py", "keys.py", "monkey.py", "pem.txt", "ssh/a.py"]
    write(root, dict.fromkeys(files, "x"))
    assert names(selected(root)) == sorted([*files, "training.py"])


def test_credential_files_of_many_tools_never_go(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(MORE_CREDENTIALS, "x"))
    assert names(selected(tmp_path)) == []


def test_names_near_those_of_credentials_go(tmp_path: Path) -> None:
    files = [
        *("credentials/load.yaml", "src/auth.py", "tokenizer.json", "settings.xml", "config.yml"),
        *(
            "src/secrets.py",
            "wgan.conf",
            "profiles.yml",
            "credentials/.env.example",
            ".secrets.baseline",
        ),
        *("docker/Dockerfile", "model/config.json", "pip.conf", "token.txt", "history.csv"),
    ]
    write(tmp_path, dict.fromkeys(files, "x"))
    assert names(selected(tmp_path)) == sorted(files)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_file_is_known_by_what_is_in_it(tmp_path: Path, encoding: str) -> None:
    suffixes = (".txt", ".json", ".yaml", ".ini", ".sh", "")
    for number, text in enumerate(CONTENTS):
        name = f"{number}{suffixes[number % len(suffixes)]}"
        (tmp_path / name).write_bytes(text.encode(encoding))
    tree = selected(tmp_path)
    assert names(tree) == []
    assert tree.credentials == len(CONTENTS)


def test_what_only_speaks_of_credentials_goes(tmp_path: Path) -> None:
    write(tmp_path, {f"{n}.txt": text for n, text in enumerate(HARMLESS_CONTENTS)})
    source = {f"{n}{end}": text for n, text in enumerate(CONTENTS) for end in (".py", ".md")}
    write(tmp_path, source)
    assert len(names(selected(tmp_path))) == len(HARMLESS_CONTENTS) + len(source)


@pytest.mark.parametrize("texts, pattern", [rule[:2] for rule in CONTENT_RULES])
def test_the_look_into_a_file_takes_linear_time(texts: tuple[bytes, ...], pattern: bytes) -> None:
    """A pattern that backtracks takes hours for these, not the tenths of a second it may take."""
    known = b" ".join(texts)
    start = b'-----begin private key "type" : index-url = http://aaaa "client_secret": "aaaa'
    quoted = b'"' + texts[0] + b'":"'
    begun = time.process_time()
    for piece in (
        known,
        quoted,
        known + b" " * 50,
        known + b": ",
        b" ",
        b"\n",
        b"\n ",
        b"a",
        start,
    ):
        text = known + piece * (CONTENT_BYTES // len(piece))
        credential_content(text)
        re.search(pattern, text)
    assert time.process_time() - begun < 20


def test_a_credential_file_that_is_named_goes(root: Path) -> None:
    write(root, {".env": "a", ".env.production": "b", "conf/cert.pem": "c", ".gitignore": ".env\n"})
    tree = selected(root, ".env", "./conf/cert.pem")
    assert names(tree) == [".env", ".gitignore", "conf/cert.pem", "training.py"]
    assert "credential files go along: .env" in tree.notes[0]


def test_an_ignored_folder_that_is_named_takes_no_credential_along(root: Path) -> None:
    write(root, {".gitignore": "data\n", "data/labels.csv": "1", "data/.env": "2", "data/x": "3"})
    assert names(selected(root, "data")) == [
        *(".gitignore", "data/labels.csv", "data/x", "training.py")
    ]
    assert "data/labels.csv" not in names(selected(root))


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "absent", "a/../../outside", ".", "./", "a/..", "gone/x"],
)
def test_only_what_is_below_the_source_root_can_be_named(root: Path, name: str) -> None:
    write(root.parent, {"outside": "x"})
    with pytest.raises(UsageError, match=f"source_include' names {re.escape(name)}"):
        selected(root, name).check()


def test_a_named_link_takes_no_credential_along(root: Path) -> None:
    write(root, {".env": "secret"})
    (root / "settings.txt").symlink_to(".env")
    (root / "folder").mkdir()
    (root / "folder" / "link").symlink_to("../.env")
    for include in ((), ("settings.txt",), ("folder",)):
        assert names(selected(root, *include)) == ["training.py"]


def test_what_another_person_named_takes_no_credential_along(root: Path) -> None:
    write(root, {".gitignore": ".env\ndata.csv\n", ".env": "secret", "data.csv": "1"})
    tree = select(SourceSelection(root, None, (".env", "data.csv"), may_include_credentials=False))
    assert names(tree) == [".gitignore", "data.csv", "training.py"]
    assert tree.credentials == 1


NEVER_GOES = [
    *(".git/config", ".git/hooks/post-commit", ".vscode/sftp.json", ".vscode/other.json"),
    *(".idea/dataSources.xml", ".zen/config.yaml", ".venv/secret", "sub/.venv/lib/x.py"),
    *("environment/pyvenv.cfg", "environment/lib/x.py", "sub/.tox/x"),
]


def never_goes(root: Path) -> list[str]:
    """The files to write: a `.git` that is no repository is an error of its own."""
    in_git = (root / ".git").exists()
    return [name for name in NEVER_GOES if in_git or not name.startswith(".git/")]


@pytest.mark.parametrize("by_link", [False, True])
def test_only_the_user_names_what_never_goes(root: Path, by_link: bool) -> None:
    """A deployment names it: as a file, as a folder, by a link, or below a linked folder."""
    write(root, {**dict.fromkeys(never_goes(root), "x"), ".gitignore": "/*\n!training.py\n"})
    named = {Path(name) for name in never_goes(root)}
    named |= {parent for path in named for parent in path.parents[:-1]} - {Path("sub")}
    if by_link:
        for number, path in enumerate(sorted(named)):
            (root / f"link{number}").symlink_to(path)
        linked = {Path(f"link{number}") for number in range(len(named))}
        named = linked | {one / "x.py" for one in linked if (root / one / "x.py").is_file()}
    include = tuple(map(str, sorted(named)))
    tree = select(SourceSelection(root, None, include, may_include_credentials=False))
    assert names(tree) == ["training.py"]
    assert named <= {*tree.left_out}


@pytest.mark.parametrize("name", ["loop", "nothing"])
def test_a_named_link_to_nothing_is_no_error(root: Path, name: str) -> None:
    (root / "loop").symlink_to("loop")
    (root / "nothing").symlink_to(".git/absent")
    for by_user in (False, True):
        tree = select(SourceSelection(root, None, (name,), may_include_credentials=by_user))
        assert names(tree) == ["training.py"]


def test_the_user_may_name_what_never_goes(root: Path) -> None:
    files = never_goes(root)
    write(root, dict.fromkeys(files, "x"))
    tree = selected(root, *files)
    assert names(tree) == sorted([*files, "training.py"])
    credentials = {str(file.path) for file in tree.files if file.credential}
    of_tools = {".git/config", ".vscode/sftp.json", ".idea/dataSources.xml"}
    assert credentials == of_tools & {*files}


def test_tracked_files_go_and_credentials_among_them_are_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, {"a.py": "x", "tests/cert.pem": "x", "key.json": SERVICE_ACCOUNT, ".env": "x"})
    git(tmp_path, "add", "a.py", "tests", "key.json")
    tree = selected(tmp_path)
    assert names(tree) == ["a.py", "key.json", "tests/cert.pem"]
    (note,) = tree.notes
    assert "key.json" in note and "tests/cert.pem" in note
    assert tree.described().endswith("(left out: 1 credential file)")


def test_a_deployment_file_of_an_earlier_run_stays_behind(root: Path) -> None:
    """It holds the environment variables of the pipeline."""
    file = DeploymentFile(
        Deployment("p", ()), {}, StackDescription("id", "s"), "0.98", ".", "modal"
    )
    deployment_file.write(root / "d.json", file)
    write(root, {"plain.json": '{"format": "x"}'})
    assert names(selected(root)) == ["plain.json", "training.py"]
    tree = selected(root)
    assert tree.left_out == {Path("d.json"): "deployment file, with environment variables"}
    assert "credential" not in tree.described()
    tree = selected(root, "d.json")
    assert names(tree) == ["d.json", "plain.json", "training.py"]
    assert tree.notes == ["these deployment files go along, with environment variables: d.json"]


def test_ignored_files_and_folders_are_counted(root: Path) -> None:
    write(root, {".gitignore": "data\n*.bin\n.env\n", ".dockerignore": "docs\n"})
    write(root, {"data/a.csv": "1", "x.bin": "1", "sub/y.bin": "1", "docs/z.md": "1", ".env": "1"})
    write(root, {"sub/__pycache__/a.pyc": "x", ".venv/x": "x", "own/pyvenv.cfg": "x"})
    write(root, {"own/lib/x.py": "x"})
    tree = selected(root)
    assert tree.left_out[Path("own")] == "virtual environment"
    assert tree.described("see") == (
        f"source: 3 files, 22 B from {root}/ ({'3 untracked; ' if tree.in_git else ''}"
        "left out: 4 ignored files, 1 ignored folder; see)"
    )


def test_what_goes_is_not_listed_as_left_out(root: Path) -> None:
    write(root, {".gitignore": "data/\nlogs/\nlinked.txt\nout\n"})
    write(root, {"data/a.csv": "1", "data/.env": "2", "logs/a": "1", "logs/b": "2"})
    (root / "out").symlink_to("/usr")
    (root / "linked.txt").symlink_to("/etc/passwd")
    tree = selected(root, "data", "logs/a", "linked.txt")
    assert names(tree) == [".gitignore", "data/a.csv", "logs/a", "training.py"]
    left_out = {str(path): rule for path, rule in tree.left_out.items()}
    assert left_out == {
        "data/.env": "credential file (environment variables, often secrets)",
        "logs": f"logs/ in .gitignore{':2' if tree.in_git else ''}, but for the files that go",
        "out": left_out["out"],
    }
    assert [str(path) for path in tree.leaving] == ["linked.txt"]


def test_a_repository_inside_takes_no_credential_along(root: Path) -> None:
    write(root, {"vendor/lib.py": "x", "vendor/.env": "secret", "vendor/.git-credentials": "x"})
    git(root / "vendor", "init", "-q")
    git(root / "vendor", "add", "-A")
    assert names(selected(root)) == ["training.py", "vendor/lib.py"]


def test_the_mount_of_modalrun_itself_takes_only_source(tmp_path: Path) -> None:
    file = tmp_path / "modalrun.zip"
    write_archive(file, "/modalrun.zip")
    with zipfile.ZipFile(file) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".py", ".pyc"}
