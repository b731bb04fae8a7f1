"""The session with a ZenML server, against a server that answers by a script."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from modalrun.errors import ServerError, UsageError
from modalrun.zenml_api import retry
from modalrun.zenml_api.rest.session import RefusedError, Session, connect
from modalrun.zenml_api.rest.settings import Unusual, server_settings

URL = "https://zenml.example"


class Fake(ThreadingHTTPServer):
    """A ZenML server with one account, whose key is "ZENKEY_right".

    Attributes:
        answers: Status and body by path; every other path is not found.
        asked: Each request: method, path, idempotency key.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.tokens = ["first", "second", "third"]
        self.valid: set[str] = set()
        self.expires_in: int | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.answers: dict[str, tuple[int, Any]] = {
            "/info": (200, {"version": version("zenml")}),
            "/runs": (200, {"items": []}),
        }

    @property
    def logins(self) -> int:
        """How often somebody has logged in."""
        return sum(path == "/login" for _, path, _ in self.asked)


class _Handler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = self.path.removeprefix("/api/v1").partition("?")[0]
        self.server.asked.append((self.command, path, self.headers["Idempotency-Key"]))
        status, answer = self.server.answers.get(path, (404, {"detail": ["KeyError", path]}))
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if path == "/login":
            status, answer = 401, {"detail": ["CredentialsNotValid", "no such key"]}
            if parse_qs(body).get("password") == ["ZENKEY_right"]:
                token = self.server.tokens.pop(0)
                self.server.valid.add(token)
                status, answer = 200, {"access_token": token}
                answer["expires_in"] = self.server.expires_in
        elif path != "/info" and token not in self.server.valid:
            status, answer = 401, {"detail": ["CredentialsNotValid", "no"]}
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        page = isinstance(answer, str)
        self.send_header("Content-Type", "text/html" if page else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ZenML's configuration folder, empty; no repository around."""
    for name in ("ZENML_STORE_URL", "ZENML_STORE_API_KEY", "ZENML_STORE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DISABLE_CREDENTIALS_DISK_CACHING", raising=False)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """The server, which the environment names with the right key."""
    fake = Fake()
    threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}).start()
    monkeypatch.setenv("ZENML_STORE_URL", fake.url + "/")
    monkeypatch.setenv("ZENML_STORE_API_KEY", "ZENKEY_right")
    yield fake
    fake.shutdown()
    fake.server_close()


def test_a_key_logs_in_once_for_many_commands(server: Fake, home: Path) -> None:
    for _ in range(3):
        assert connect(home).get("/runs", size=1, none=None) == {"items": []}
    assert server.logins == 1
    (kept,) = home.glob(".modalrun.tokens*")
    assert kept.stat().st_mode & 0o077 == 0
    assert "ZENKEY" not in kept.read_text()


def test_a_token_that_is_refused_is_replaced(server: Fake, home: Path) -> None:
    session = connect(home)
    session.get("/runs")
    server.valid.clear()
    assert session.get("/runs") == {"items": []}
    assert connect(home).get("/runs") == {"items": []}
    assert server.logins == 2


def test_a_token_that_ends_soon_is_not_used(server: Fake, home: Path) -> None:
    server.expires_in = 30
    connect(home).get("/runs")
    connect(home).get("/runs")
    assert server.logins == 2


def test_another_key_gets_no_token_of_the_first_one(
    server: Fake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(home).get("/runs")
    monkeypatch.setenv("ZENML_STORE_API_KEY", "ZENKEY_wrong")
    with pytest.raises(Unusual, match="credentials"):
        connect(home).get("/runs")


def test_nothing_is_kept_where_zenml_may_keep_nothing(
    server: Fake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_CREDENTIALS_DISK_CACHING", "True")
    connect(home).get("/runs")
    assert not list(home.iterdir())


@pytest.mark.parametrize("damage", ["", "[]", '{"x": 1}', "[" * 100_000])
def test_a_damaged_file_of_tokens(server: Fake, home: Path, damage: str) -> None:
    connect(home).get("/runs")
    (kept,) = home.glob(".modalrun.tokens*")
    kept.write_text(damage)
    assert connect(home).get("/runs") == {"items": []}
    assert connect(home).get("/runs") == {"items": []}
    assert server.logins == 2


@pytest.mark.parametrize("damage", [{"until": "soon"}, {"until": []}, {"until": True}])
def test_a_damaged_time_of_a_token(server: Fake, home: Path, damage: dict[str, object]) -> None:
    connect(home).get("/runs")
    (kept,) = home.glob(".modalrun.tokens*")
    found = json.loads(kept.read_text())
    kept.write_text(json.dumps({key: {**one, **damage} for key, one in found.items()}))
    connect(home).get("/runs")
    assert server.logins == 2


def test_a_full_disk_leaves_no_token_behind(
    server: Fake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modalrun.zenml_api.rest.session.json.dump", full)
    connect(home).get("/runs")
    assert not [*home.glob(".modalrun.tokens*")]


@pytest.mark.parametrize("found", ["0.1.0", None, 7])
def test_a_server_of_another_version(server: Fake, home: Path, found: object) -> None:
    server.answers["/info"] = (200, {"version": found})
    with pytest.raises(Unusual, match="version"):
        connect(home)


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [(404, UsageError, "no ZenML server at http"), (403, Unusual, "does not describe itself")],
)
def test_an_address_of_something_else(
    server: Fake, home: Path, status: int, error: type[Exception], text: str
) -> None:
    server.answers["/info"] = (status, "<html>not here</html>")
    with pytest.raises(error, match=text):
        connect(home)


@pytest.mark.parametrize("body", ["<html>", ""])
def test_an_answer_that_is_not_json(server: Fake, home: Path, body: str) -> None:
    server.answers["/info"] = (200, body)
    with pytest.raises(Unusual, match="not JSON"):
        connect(home)


def test_refusals(server: Fake, home: Path) -> None:
    server.answers["/taken"] = (409, {"detail": ["EntityExistsError", "it exists"]})
    session = connect(home)
    with pytest.raises(RefusedError, match="it exists") as refused:
        session.post("/taken", {"name": "x"})
    assert (refused.value.status, str(refused.value)) == (409, "it exists")
    with pytest.raises(KeyError, match="/missing"):
        session.put("/missing", {})
    keys = [key for _, _, key in server.asked]
    assert len(set(keys)) == len(keys)


def test_trouble_of_the_server(
    server: Fake, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.0)
    server.answers["/runs"] = (500, {"detail": ["RuntimeError", "the database is full"]})
    with pytest.raises(ServerError, match="GET /api/v1/runs got status 500: the database is full"):
        connect(home).get("/runs")
    assert "The ZenML server answers with status 500; trying again." in capsys.readouterr().err


def configured(home: Path, **store: object) -> None:
    (home / "config.yaml").write_text(yaml.safe_dump({"store": {"type": "rest"} | store}))


@pytest.mark.parametrize(
    ("until", "used"), [(None, True), (3600, True), (-3600, False), (60, False)]
)
@pytest.mark.parametrize("zone", ["+00:00", "Z", ""])
def test_a_stored_token(home: Path, until: int | None, used: bool, zone: str) -> None:
    configured(home, url=URL)
    token: dict[str, object] = {"access_token": "stored", "leeway": 120}
    if until is not None:
        moment = datetime.now(timezone.utc) + timedelta(seconds=until)
        token["expires_at"] = moment.replace(tzinfo=None).isoformat() + zone
    login = {"url": URL, "api_key": "ZENKEY_1", "api_token": token}
    (home / "credentials.yaml").write_text(yaml.safe_dump({URL: login}))
    found = server_settings()
    assert found.url == URL
    assert found.token == ("stored" if used else None)
    assert found.login == {"grant_type": "zenml-api-key", "password": "ZENKEY_1"}
    assert "ZENKEY" not in repr(found)
    assert "stored" not in repr(found)


def test_a_key_of_the_environment_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(home, url=URL)
    (home / "credentials.yaml").write_text(
        yaml.safe_dump({URL: {"url": URL, "api_token": {"access_token": "stored"}}})
    )
    monkeypatch.setenv("ZENML_STORE_API_KEY", "ZENKEY_2")
    monkeypatch.setenv("ZENML_STORE_API_TOKEN", "given")
    found = server_settings()
    assert (found.token, found.login) == (
        None,
        {"grant_type": "zenml-api-key", "password": "ZENKEY_2"},
    )


def test_a_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", URL)
    monkeypatch.setenv("ZENML_STORE_USERNAME", "default")
    monkeypatch.setenv("ZENML_STORE_PASSWORD", "")
    login = server_settings().login
    assert login == {"grant_type": "password", "username": "default", "password": ""}
    assert Session(server_settings(), home)._key is None


@pytest.mark.parametrize(
    ("given", "verify"),
    [(True, True), (False, False), ("false", False), ("1", True), ("FILE", "FILE")],
)
def test_certificates(home: Path, given: object, verify: object) -> None:
    file = home / "bundle.pem"
    file.write_text("")
    configured(home, url=URL, verify_ssl=str(file) if given == "FILE" else given)
    assert server_settings().verify == (str(file) if verify == "FILE" else verify)


@pytest.mark.parametrize(
    "store",
    [
        {"type": "sql", "url": "sqlite:///zenml.db"},
        {"url": "mysql://user@host/zenml"},
        {"url": URL, "verify_ssl": "-----BEGIN CERTIFICATE-----"},
        {"url": URL, "api_key": "ZENPROKEY_1"},
        {},
    ],
)
def test_what_only_zenml_knows(home: Path, store: dict[str, object]) -> None:
    configured(home, **store)
    with pytest.raises(Unusual):
        server_settings()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"/current-user": {"body": {"default_project_id": "p1"}}, "/projects/p1": {"id": 1}}, 1),
        (
            {
                "/current-user": {"body": {"default_project_id": None}},
                "/projects": {"total": 1, "items": [{"id": 2}]},
            },
            2,
        ),
    ],
)
def test_the_project_where_none_is_configured(
    server: Fake, home: Path, answers: dict[str, Any], expected: int
) -> None:
    server.answers |= {path: (200, answer) for path, answer in answers.items()}
    assert connect(home).project == {"id": expected}


def test_a_project_that_is_gone(server: Fake, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENML_ACTIVE_PROJECT_ID", "gone")
    with pytest.raises(Unusual, match="project"):
        _ = connect(home).project


def test_the_repository_names_the_project(
    home: Path, monkeypatch: pytest.MonkeyPatch, server: Fake
) -> None:
    configured(home, url=URL)
    inner = home / "project" / "inner"
    inner.mkdir(parents=True)
    (home / "project" / ".zen").mkdir()
    (home / "project" / ".zen" / "config.yaml").write_text("active_project_id: own")
    monkeypatch.chdir(inner)
    server.answers["/projects/own"] = (200, {"id": "own"})
    assert connect(home).project == {"id": "own"}


def test_zenml_is_not_imported() -> None:
    code = "import sys, modalrun.zenml_api.rest.session; sys.exit('zenml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
