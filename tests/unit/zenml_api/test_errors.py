"""Translate ZenML's exceptions to modalrun's."""

from __future__ import annotations

import pytest
import requests
from zenml.exceptions import CredentialsNotValid, ZenKeyError

from modalrun.errors import (
    AuthenticationError,
    ConnectionLostError,
    ModalrunError,
    NotFoundError,
)
from modalrun.zenml_api.errors import translated

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
            requests.exceptions.RetryError("too many 503 error responses"),
            ConnectionLostError,
            "503",
        ),
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
