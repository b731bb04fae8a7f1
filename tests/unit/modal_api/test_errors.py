"""The Modal side without a server: errors, and whether it is there."""

import builtins
import socket

import aiohttp
import pytest
from grpclib import GRPCError, Status
from modal import exception as modal_errors

from modalrun.errors import (
    AuthenticationError,
    CapacityError,
    ConflictError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
    RunFailedError,
    UsageError,
)
from modalrun.localmodal.launcher import DISK_FULL
from modalrun.modal_api import client
from modalrun.modal_api.errors import translated


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (modal_errors.AuthError("no token"), AuthenticationError),
        (modal_errors.PermissionDeniedError("not yours"), AuthenticationError),
        (modal_errors.NotFoundError("no such environment"), NotFoundError),
        (modal_errors.ResourceExhaustedError("too many"), CapacityError),
        # The local server's disk: waiting for capacity would take for ever.
        (modal_errors.ResourceExhaustedError(f"{DISK_FULL} /x is full."), UsageError),
        (modal_errors.RemoteError("pip failed"), RunFailedError),
        (modal_errors.ConflictError("loading container failed"), ConflictError),
        (modal_errors.InvalidError("bad gpu"), UsageError),
        (modal_errors.RequestSizeError("too long"), UsageError),
        (modal_errors.VersionError("too old"), UsageError),
        (modal_errors.ConnectionError("gone"), ConnectionLostError),
        (modal_errors.UnimplementedError("no such call"), UsageError),
        (modal_errors.ServiceError("down"), ConnectionLostError),
        (modal_errors.DataLossError("torn"), ConnectionLostError),
        (modal_errors.InternalError("broken"), ConnectionLostError),
        (modal_errors.ExecutionError("Failed to upload blob"), ConnectionLostError),
        (modal_errors.InternalFailure("again"), ConnectionLostError),
        (modal_errors.MountUploadTimeoutError("slow"), ConnectionLostError),
        (modal_errors.ClientClosed("closed"), ConnectionLostError),
        (GRPCError(Status.ABORTED, "torn"), ConnectionLostError),
        (aiohttp.ClientPayloadError("half an answer"), ConnectionLostError),
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


def test_a_token_of_an_earlier_local_server_has_one_remedy() -> None:
    refused = modal_errors.AuthError('Run this again: eval "$(modalrun local env)"')
    with pytest.raises(AuthenticationError) as caught, translated():
        raise refused
    assert caught.value.hint is None


def test_every_error_of_the_sdk_is_translated_or_handled_by_callers() -> None:
    handled = {
        modal_errors.AlreadyExistsError,
        modal_errors.SandboxTimeoutError,
        modal_errors.SandboxTerminatedError,
        modal_errors.LogsFetchError,
    }
    kinds = [kind for kind in vars(modal_errors).values() if isinstance(kind, type)]
    errors = [kind for kind in kinds if issubclass(kind, modal_errors.Error)]
    assert len(errors) > 30
    for kind in errors:
        raised = kind("text", "im-1") if kind is modal_errors.ImageBuildError else kind("text")
        with pytest.raises(Exception) as caught, translated():
            raise raised
        assert isinstance(caught.value, ModalrunError) or kind in handled


@pytest.mark.parametrize(
    "raised",
    [modal_errors.AlreadyExistsError("x"), modal_errors.SandboxTimeoutError("z"), ValueError("y")],
)
def test_not_translated(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, translated():
        raise raised
    assert caught.value is raised


def test_authentication_error_says_what_to_do() -> None:
    with pytest.raises(AuthenticationError) as caught, translated():
        raise modal_errors.AuthError("no token")
    assert "modal setup" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("of_stack", "variable", "place"),
    [
        (False, None, "modal setup"),
        (False, "ak-1", "remove both"),
        (True, None, "zenml secret update"),
        (True, "ak-1", "zenml secret update"),
    ],
)
def test_a_refused_token_is_to_be_changed_where_it_is(
    monkeypatch: pytest.MonkeyPatch, *, of_stack: bool, variable: str | None, place: str
) -> None:
    monkeypatch.setenv("MODAL_TOKEN_ID", variable or "")
    with pytest.raises(AuthenticationError) as caught, translated():
        raise modal_errors.AuthError("expired")
    told = client.refused_token(caught.value, of_stack=of_stack)
    assert told.problem == caught.value.problem
    assert place in str(told.hint)


def test_a_right_that_is_missing_is_not_the_fault_of_the_token() -> None:
    with pytest.raises(AuthenticationError, match="allow this: not yours") as caught, translated():
        raise modal_errors.PermissionDeniedError("not yours")
    assert "modal setup" not in str(caught.value.hint)


# Reaching the server.


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionLostError) as caught:
        client.require_server(f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "Nothing was created" in caught.value.message


def test_a_server_that_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client.require_server(f"http://127.0.0.1:{server.getsockname()[1]}")


def test_behind_a_proxy_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setattr(socket, "create_connection", None)
    client.require_server("https://api.modal.com")
