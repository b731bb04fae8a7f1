"""The Modal side without a server: errors, image layers, creating once, and reading to the end."""

import builtins
import socket
import threading
from collections.abc import Iterator

import pytest
from modal import exception as modal_errors

from modalrun import modal_api
from modalrun.errors import (
    AuthenticationError,
    CapacityError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
    RunFailedError,
    UsageError,
)
from modalrun.modal_api import RunningSandbox, SandboxEnd, end_kind, translated


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, "completed"),
        (1, "failed"),
        (2, "failed"),
        (124, "timed_out"),
        (130, "stopped"),
        (137, "stopped"),
        (143, "stopped"),
        (139, "failed"),
        (-1, "failed"),
    ],
)
def test_end_kind(code: int, kind: str) -> None:
    assert end_kind(code) == kind


def test_end_kind_knows_the_codes_of_the_supervisor() -> None:
    from modalrun import driver

    assert end_kind(driver.EXIT_COMPLETED) == "completed"
    assert end_kind(driver.EXIT_FAILED) == "failed"
    assert end_kind(driver.EXIT_TIMED_OUT) == "timed_out"
    assert end_kind(driver.EXIT_KILLED) == end_kind(driver.EXIT_TERMINATED) == "stopped"


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (modal_errors.AuthError("no token"), AuthenticationError),
        (modal_errors.PermissionDeniedError("not yours"), AuthenticationError),
        (modal_errors.NotFoundError("no such environment"), NotFoundError),
        (modal_errors.ResourceExhaustedError("too many"), CapacityError),
        (modal_errors.RemoteError("pip failed"), RunFailedError),
        (modal_errors.InvalidError("bad gpu"), UsageError),
        (modal_errors.VersionError("too old"), UsageError),
        (modal_errors.ConnectionError("gone"), ConnectionLostError),
        (modal_errors.ServiceError("down"), ConnectionLostError),
        (modal_errors.InternalError("broken"), ConnectionLostError),
        (builtins.ConnectionError("reset"), ConnectionLostError),
        (ConnectionResetError("reset"), ConnectionLostError),
        (socket.gaierror("no name"), ConnectionLostError),
    ],
)
def test_translated(raised: Exception, error: type[ModalrunError]) -> None:
    with pytest.raises(ModalrunError) as caught, translated():
        raise raised
    assert type(caught.value) is error
    assert str(raised) in caught.value.message
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [modal_errors.AlreadyExistsError("x"), ValueError("y")])
def test_not_translated(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, translated():
        raise raised
    assert caught.value is raised


def test_authentication_error_says_what_to_do() -> None:
    with pytest.raises(AuthenticationError) as caught, translated():
        raise modal_errors.AuthError("no token")
    assert "modal setup" in str(caught.value.hint)


# Reaching the server.


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionLostError) as caught:
        modal_api._require_server(f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "Nothing was created" in caught.value.message


def test_a_server_that_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        modal_api._require_server(f"http://127.0.0.1:{server.getsockname()[1]}")


def test_behind_a_proxy_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setattr(socket, "create_connection", None)
    modal_api._require_server("https://api.modal.com")


# Watching.


class Stream:
    """A stream of a sandbox: pieces of text, and exceptions that break it off."""

    def __init__(self, *pieces: str | BaseException) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


class Handle:
    """A handle on a sandbox, as the SDK gives it."""

    object_id = "sb-1"

    def __init__(
        self,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
        *,
        code: int = 0,
        waiting: BaseException | None = None,
    ) -> None:
        self.stdout = stdout or Stream()
        self.stderr = stderr or Stream()
        self.returncode = code
        self._waiting = waiting

    def wait(self, *, raise_on_termination: bool) -> None:
        assert not raise_on_termination
        if self._waiting:
            raise self._waiting

    def terminate(self) -> None:
        raise modal_errors.NotFoundError("gone")


class FakeConnection:
    """A connection whose fresh handles are known beforehand; the last one is given again."""

    target = "local"

    def __init__(self, *handles: Handle) -> None:
        self.handles = list(handles)
        self.reconnected = 0

    def reconnect(self) -> None:
        self.reconnected += 1

    def attach(self, sandbox_id: str) -> Handle:
        assert sandbox_id == "sb-1"
        return self.handles.pop(0) if len(self.handles) > 1 else self.handles[0]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(modal_api, "time", clock)
    return clock


def watch(first: Handle, *fresh: Handle) -> tuple[SandboxEnd, dict[str, str]]:
    seen = {"stdout": "", "stderr": ""}

    def on_output(source: str, text: str) -> None:
        assert text, "no empty pieces"
        seen[source] += text

    connection = FakeConnection(*(fresh or (first,)))
    sandbox = RunningSandbox(connection, first, app_id="ap-1")  # type: ignore[arg-type]
    return sandbox.watch(on_output), seen


def test_watch() -> None:
    end, seen = watch(Handle(Stream("a\n", "b", "c\n"), Stream("err"), code=1))
    assert end == SandboxEnd("failed", 1)
    assert seen == {"stdout": "a\nbc\n", "stderr": "err"}


def test_watch_a_timeout() -> None:
    end, _ = watch(Handle(waiting=modal_errors.SandboxTimeoutError("over")))
    assert end == SandboxEnd("timed_out", 124)


@pytest.mark.parametrize(
    "lost", [modal_errors.ConnectionError("lost"), ConnectionResetError("reset")]
)
def test_output_goes_on_where_it_stopped(lost: Exception) -> None:
    first = Handle(Stream("one ", "two ", lost), waiting=lost)
    # The same text, in other pieces, broken off again, and then whole.
    second = Handle(Stream("on", "e two th", lost), waiting=lost)
    third = Handle(Stream("one two three ", "four"), code=0)
    end, seen = watch(first, second, third)
    assert end == SandboxEnd("completed", 0)
    assert seen["stdout"] == "one two three four"


def test_a_connection_that_stays_lost(clock: Clock) -> None:
    lost = modal_errors.ConnectionError("lost")
    dead = Handle(Stream(lost), Stream(lost), waiting=lost)
    with pytest.raises(ConnectionLostError):
        watch(dead)
    assert clock.now >= modal_api.RECONNECT_SECONDS


def test_a_stream_that_is_not_text() -> None:
    broken = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    end, seen = watch(Handle(Stream("before\n", broken), code=0))
    assert end.kind == "completed"
    assert seen["stdout"].startswith("before\n")
    assert "not UTF-8" in seen["stdout"]


def test_terminate_is_translated() -> None:
    sandbox = RunningSandbox(FakeConnection(Handle()), Handle(), app_id="ap-1")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        sandbox.terminate()
