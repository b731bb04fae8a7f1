"""Repeat requests while a server is away."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import sqlalchemy
from sqlalchemy.exc import OperationalError
from zenml.config.global_config import GlobalConfiguration

from modalrun.errors import ConnectionLostError, ServerError
from modalrun.zenml_api import retry
from modalrun.zenml_api.errors import translated
from modalrun.zenml_api.retry import _Adapter, retry_policy

ZENML_GIVES_UP_AFTER = 10
"""Attempts (`rest_zen_store.py`, property `session`, ZenML 0.98.0)."""


class Scripted(ThreadingHTTPServer):
    """A server that answers by a script, one status after the other; 0 hangs up instead.

    `PAGE` has the status 200, and `CUT` is an answer that breaks off. A negative status
    comes with a page.
    """

    script: list[int | str]
    asked: int = 0
    keys: list[str]


CUT = "CUT"
PAGE = "<html>Please log in</html>"
NOT_ZENMLS = "an answer that is not ZenML's"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_PUT(self) -> None:
        self.server.asked += 1
        answer = self.server.script.pop(0) if self.server.script else 200
        if not answer:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status = answer if isinstance(answer, int) else 200
        page = answer == PAGE or status < 0
        body = PAGE if page else '{"detail": ["RuntimeError", "the database is full"]}'
        self.server.keys.append(self.headers["Idempotency-Key"])
        self.send_response(abs(status))
        if status != 200:
            self.send_header("Retry-After", "3600")
        self.send_header("Content-Type", "text/html" if page else "application/json")
        self.send_header("Content-Length", str(len(body) + (answer == CUT)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server that is bound, but doesn't listen before the test starts it."""
    made = Scripted(("127.0.0.1", 0), _Handler, bind_and_activate=False)
    made.server_bind()
    made.script, made.keys = [], []
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated at once."""
    monkeypatch.setattr(retry, "pauses", lambda longest: itertools.repeat(0.0))


def put(
    server: Scripted,
    logged: list[str],
    heard: threading.Event | None = None,
    *,
    in_sandbox: bool = True,
) -> int:
    session = requests.Session()
    address = f"http://127.0.0.1:{server.server_address[1]}/"

    def log(text: str) -> None:
        logged.append(text)
        if heard is not None:
            heard.set()

    session.mount(address, _Adapter(max_retries=retry_policy(log, pause=0, in_sandbox=in_sandbox)))
    headers = {"Idempotency-Key": "one"}
    return session.put(f"{address}api/v1/steps", timeout=30, headers=headers).status_code


def serve(server: Scripted) -> None:
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()


def test_a_server_that_is_not_there_yet(server: Scripted) -> None:
    missed = threading.Event()

    def come() -> None:
        missed.wait(30)
        serve(server)

    threading.Thread(target=come, daemon=True).start()
    logged: list[str] = []
    assert put(server, logged, missed) == 200
    assert len(logged) == 1
    assert "The ZenML server doesn't answer (" in logged[0]


@pytest.mark.parametrize("in_sandbox", [True, False], ids=["sandbox", "command"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520])
def test_a_server_in_trouble(server: Scripted, status: int, in_sandbox: bool) -> None:
    serve(server)
    server.script = [status] * (ZENML_GIVES_UP_AFTER * 3)
    logged: list[str] = []
    assert put(server, logged, in_sandbox=in_sandbox) == 200
    assert logged == [f"The ZenML server answers with status {status}; trying again."]
    # By the key the server sees that it has handled the request before.
    assert set(server.keys) == {"one"}


@pytest.mark.parametrize("answer", [CUT, PAGE, -404])
def test_an_answer_that_cannot_be_read(
    server: Scripted, answer: int | str, capsys: pytest.CaptureFixture[str], no_pauses: None
) -> None:
    serve(server)
    server.script = [answer] * 9
    assert put(server, []) == 200
    assert set(server.keys) == {"one"} and len(server.keys) == 10
    assert capsys.readouterr().err.count("answer can't be read") == 1


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (CUT, ConnectionLostError, "can't be reached: ('Connection broken"),
        (PAGE, ServerError, f"PUT /api/v1/steps got {NOT_ZENMLS}, with status 200: '<html>"),
        (-404, ServerError, f"PUT /api/v1/steps got {NOT_ZENMLS}, with status 404: '<html>"),
    ],
)
def test_an_answer_that_can_never_be_read(
    server: Scripted,
    answer: int | str,
    error: type[ConnectionLostError],
    text: str,
    no_pauses: None,
) -> None:
    serve(server)
    server.script = [answer] * 100
    with pytest.raises(error, match=re.escape(text)) as raised, translated():
        put(server, [])
    assert type(raised.value) is error
    assert server.asked == 18


@pytest.mark.parametrize("status", [304, 400, 403, 407, 413, 451])
def test_a_proxy_that_refuses_a_request(server: Scripted, status: int) -> None:
    serve(server)
    server.script = [-status]
    with pytest.raises(ServerError, match=f"{NOT_ZENMLS}, with status {status}"), translated():
        put(server, [])
    assert server.asked == 1


@pytest.mark.parametrize("status", [401, 414])
def test_a_proxy_s_answer_that_zenml_s_client_acts_on(server: Scripted, status: int) -> None:
    serve(server)
    server.script = [-status]
    assert put(server, []) == status


def test_a_limit_of_requests_that_lasts(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.05)
    serve(server)
    server.script = [429] * 100_000
    with pytest.raises(ServerError, match="got status 429"), translated():
        put(server, [], in_sandbox=False)


def test_trouble_that_lasts_ends_with_the_server_s_text(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.05)
    serve(server)
    server.script = [500] * 100_000
    expected = "PUT /api/v1/steps got status 500: the database is full"
    with pytest.raises(ServerError, match=expected), translated():
        put(server, [])
    assert server.asked > 1


def test_trouble_after_an_absence_has_its_whole_time(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1_000_000, 100))
    monkeypatch.setattr(retry.time, "monotonic", lambda: float(next(clock)))
    serve(server)
    # Each reading of the clock is 100 s later, of which the limit allows one.
    server.script = [0, 0, 0, 0, 500, 200]
    assert put(server, []) == 200


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_is_not_repeated(server: Scripted, status: int) -> None:
    serve(server)
    server.script = [status]
    assert put(server, []) == status
    assert server.asked == 1


def test_a_database_whose_disk_is_full_is_written_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "pauses", lambda: iter([0.0] * 9))
    full = OperationalError("UPDATE", {}, Exception("database or disk is full"))
    left = [full, full]

    def write() -> str:
        if left:
            raise left.pop()
        return "written"

    assert retry.while_database_fails(write) == "written"
    monkeypatch.setattr(retry, "DATABASE_PATIENCE", 0)
    left += [full] * 3
    with pytest.raises(OperationalError):
        retry.while_database_fails(write)
    assert len(left) == 2


class _Store:
    """A client whose store opens after these errors."""

    def __init__(self, *errors: Exception) -> None:
        self.left = list(errors)

    @property
    def zen_store(self) -> str:
        if self.left:
            raise RuntimeError("Error connecting to URL") from self.left.pop(0)
        return "store"


def test_a_store_is_opened_in_spite_of_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(RuntimeError("status 500"), requests.exceptions.RetryError("503"))
    monkeypatch.setattr("zenml.client.Client", lambda: store)
    monkeypatch.setattr(retry, "pauses", lambda longest: iter([0.0] * 9))
    retry.open_store()
    assert store.left == []


def test_a_configuration_that_is_being_written_is_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole = tmp_path / "config.yaml", "user_id: 0e0eb158-1439-4622-becd-000000000000\n"
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path))
    monkeypatch.setattr("zenml.client.Client", _Store)
    monkeypatch.setattr(GlobalConfiguration, "_global_config", None)

    def pauses() -> Iterator[float]:
        path.write_text(whole)
        yield 0.0

    monkeypatch.setattr("modalrun.util.retry.pauses", pauses)
    path.write_text(whole + "version")
    assert retry._opened(in_sandbox=True) == "store"
    assert "ZenML's configuration can't be read" in capsys.readouterr().err
    assert "0e0eb158" in path.read_text()


AWAY = [
    requests.ConnectionError("Connection refused"),
    requests.ReadTimeout("Read timed out."),
    requests.exceptions.ChunkedEncodingError("Connection broken"),
    ValueError("Bad response from API. Expected json, got\n<html>"),
]


@pytest.mark.parametrize("error", AWAY)
def test_a_sandbox_waits_for_a_server_before_it_opens_its_store(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = _Store(*[error] * 20)
    monkeypatch.setattr("zenml.client.Client", lambda: store)
    monkeypatch.setattr(retry, "pauses", lambda longest: iter([0.0] * 20))
    assert retry._opened(in_sandbox=True) == "store"
    assert store.left == []


@pytest.mark.parametrize(
    ("error", "in_sandbox"),
    [(AWAY[0], False), (requests.exceptions.SSLError("self-signed certificate"), True)],
)
def test_a_server_that_will_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception, in_sandbox: bool
) -> None:
    store = _Store(error, error)
    monkeypatch.setattr("zenml.client.Client", lambda: store)
    with pytest.raises(ConnectionLostError):
        retry.open_store(in_sandbox=in_sandbox)
    assert len(store.left) == 1


def test_a_server_that_a_sandbox_never_reaches_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = _Store(*AWAY)
    monkeypatch.setattr("zenml.client.Client", lambda: store)
    monkeypatch.setattr(retry, "OPENING_PATIENCE", -1.0)
    with pytest.raises(ConnectionLostError):
        retry.open_store(in_sandbox=True)
    assert len(store.left) == len(AWAY) - 1


def test_a_sandbox_waits_long_for_a_locked_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'zenml.db'}")
    monkeypatch.setattr(retry, "_opened", lambda in_sandbox: SimpleNamespace(engine=engine))
    waits = []
    for in_sandbox in (False, True):
        retry.open_store(in_sandbox=in_sandbox)
        with engine.connect() as connection:
            waits.append(connection.exec_driver_sql("PRAGMA busy_timeout").scalar())
    assert waits == [5_000, 600_000]


def test_an_address_that_is_no_zenml_server_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = _Store(ValueError("Bad response from API"), RuntimeError("never raised"))
    monkeypatch.setattr("zenml.client.Client", lambda: store)
    with pytest.raises(ConnectionLostError):
        retry.open_store()
    assert len(store.left) == 1


def test_a_request_that_is_never_answered_fails(server: Scripted) -> None:
    serve(server)
    server.script = [0] * 100
    with pytest.raises(requests.ConnectionError):
        put(server, [])
    assert server.asked == 9
