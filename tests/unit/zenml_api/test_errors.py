"""Translate ZenML's exceptions to modalrun's."""

from __future__ import annotations

import sqlite3
from importlib import metadata
from types import SimpleNamespace

import pytest
import requests
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import OperationalError
from zenml.config.global_config import GlobalConfiguration
from zenml.exceptions import (
    CredentialsNotValid,
    MaxConcurrentTasksError,
    SubscriptionUpgradeRequiredError,
    ZenKeyError,
)
from zenml.models import TagRequest
from zenml.zen_stores.rest_zen_store import RestZenStore

from modalrun.errors import (
    AuthenticationError,
    ConnectionLostError,
    MachineError,
    ModalrunError,
    NotFoundError,
    ServerError,
    UsageError,
)
from modalrun.zenml_api.errors import store_error, translated

# As in ZenML 0.98.0: messages from a server are quoted.
NO_PROJECT = "\"Unable to get project with name or ID 'x': No project with this ID found.\""


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (CredentialsNotValid("Invalid API key."), AuthenticationError, "Invalid API key."),
        (ZenKeyError("No run 'x'."), NotFoundError, "No run 'x'."),
        (KeyError(NO_PROJECT), NotFoundError, NO_PROJECT.strip('"')),
        (
            RuntimeError("Error connecting to URL http://127.0.0.1:1"),
            ConnectionLostError,
            "can't be reached",
        ),
        # Of a server that was there before.
        (requests.ConnectionError("Connection refused"), ConnectionLostError, "refused"),
        (requests.ReadTimeout("Read timed out."), ConnectionLostError, "timed out"),
        (
            requests.exceptions.ChunkedEncodingError("Connection broken"),
            ConnectionLostError,
            "can't be reached: Connection broken",
        ),
        (
            requests.exceptions.RetryError("too many 503 error responses"),
            ConnectionLostError,
            "503",
        ),
        # At the login, for which ZenML uses no session.
        (ValueError("Bad response from API. Expected json, got\n<html>"), ServerError, "trouble"),
        (RuntimeError("413 HTTP Error received from server: <html>"), ServerError, "413"),
        (SubscriptionUpgradeRequiredError("Only 10 runs."), AuthenticationError, "allow this"),
        (MaxConcurrentTasksError("Minute request limit exceeded."), ServerError, "exceeded."),
    ],
)
def test_translated(raised: Exception, error: type[ModalrunError], message: str) -> None:
    with pytest.raises(error, match=message.replace(".", r"\.")), translated():
        raise raised


def test_a_project_that_is_gone_comes_with_what_to_do() -> None:
    with pytest.raises(NotFoundError) as caught, translated():
        raise KeyError(NO_PROJECT)
    assert "ZENML_ACTIVE_PROJECT_ID" in str(caught.value.hint)


@pytest.mark.parametrize("raised", [KeyError("load"), KeyError(), RuntimeError("of ours")])
def test_not_translated(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, translated():
        raise raised
    assert caught.value is raised


def test_a_database_that_fails_is_a_fault_of_the_machine() -> None:
    error = OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))

    known = store_error(error)

    assert isinstance(known, MachineError)
    assert "can't be used: disk I/O error." in known.message
    assert "INSERT" not in known.message


def test_a_name_that_zenml_refuses() -> None:
    with pytest.raises(ValidationError) as raised:
        TagRequest(name="n" * 256)

    known = store_error(raised.value)

    assert isinstance(known, UsageError)
    assert "at most 255 characters as the name of a tag" in known.message


def test_a_configuration_of_wrong_types() -> None:
    class GlobalConfiguration(BaseModel):
        user_id: int

    with pytest.raises(ValidationError) as raised:
        GlobalConfiguration.model_validate({"user_id": "nobody"})

    known = store_error(raised.value)

    assert isinstance(known, UsageError)
    assert "config.yaml is damaged: user_id: " in known.message


def test_another_validation_error_stays_what_it_is() -> None:
    class Other(BaseModel):
        number: int

    with pytest.raises(ValidationError) as raised:
        Other.model_validate({"number": "x"})

    assert store_error(raised.value) is None
    assert store_error(ValueError("x")) is None


def answered(status: int, body: str) -> Exception:
    """Return what ZenML's client raises for an answer."""
    response = requests.Response()
    response.status_code, response._content = status, body.encode()
    with pytest.raises(Exception) as raised:
        RestZenStore._handle_response(response)
    return raised.value


@pytest.mark.parametrize(
    ("status", "body"),
    [(405, '{"detail": "Method Not Allowed"}'), (404, '{"detail": "Not Found"}')],
)
def test_a_server_of_another_version_is_named_where_zenmls_client_fails(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str
) -> None:
    def connected_to(version: str) -> None:
        store = SimpleNamespace(_server_info=SimpleNamespace(version=version))
        instance = SimpleNamespace(_zen_store=store)
        monkeypatch.setattr(GlobalConfiguration, "get_instance", lambda: instance)

    error = answered(status, body)
    connected_to(metadata.version("zenml"))
    assert store_error(error) is None
    connected_to("0.84.2")
    assert store_error(KeyError("of ours")) is None

    known = store_error(error)

    assert isinstance(known, UsageError)
    assert "server, which is of version 0.84.2, has failed: " in known.message
    assert "run a server of such a version" in str(known.hint)
