"""Secrets: named ones persist, inline ones leave no trace on disk."""

from __future__ import annotations

import sqlite3
from typing import Any

import modal
import pytest
from modal.exception import InvalidError, NotFoundError

from modalrun.localmodal import launcher
from tests.folders import files_with

from .support import Sdk

Backend = dict[str, Any]
VALUE = "a-value-that-nobody-may-see"


def test_inline_secrets_leave_no_trace(sdk: Sdk, backend: Backend) -> None:
    sandbox = sdk.create(
        "sh", "-c", 'test "$FIRST$SECOND" = "$FIRST$FIRST" && echo same; read line',
        secrets=[modal.Secret.from_dict({"FIRST": VALUE})], env={"SECOND": VALUE}, **backend,
    )  # fmt: skip
    assert next(iter(sandbox.stdout)) == "same\n"
    state = sdk.info.state_dir
    assert files_with(state, VALUE) == []
    assert VALUE not in str(launcher.status(state))
    sandbox.terminate(wait=True)
    launcher.stop(state)
    assert files_with(state, VALUE) == []


def test_the_last_one_wins(sdk: Sdk) -> None:
    for gpu in (None, "T4"):
        secrets = [modal.Secret.from_dict({"A": "1", "B": "1"}), modal.Secret.from_dict({"B": "2"})]
        sandbox = sdk.create(
            "sh", "-c", "echo $A$B$C", secrets=secrets, env={"A": "3", "C": "3"}, gpu=gpu
        )
        assert sandbox.stdout.read() == "323\n"


def test_a_key_is_the_name_of_a_variable(sdk: Sdk, backend: Backend) -> None:
    secrets = [modal.Secret.from_dict({"A-B": "x"})]
    with pytest.raises(InvalidError, match="'A-B' is not that of an environment variable"):
        sdk.create("true", secrets=secrets, **backend)
    sandbox = sdk.create("sleep", "1000", **backend)
    with pytest.raises(InvalidError, match="'A-B' is not that of an environment variable"):
        sandbox.exec("true", secrets=secrets)


def test_named_secrets_survive_a_restart(sdk: Sdk, backend: Backend, connect: Any) -> None:
    modal.Secret.objects.create("mine", {"KEY": VALUE}, client=sdk.client)
    launcher.stop(sdk.info.state_dir)
    again = connect(launcher.ensure_running(sdk.info.state_dir))
    secret = modal.Secret.from_name("mine", required_keys=["KEY"])
    sandbox = again.create("sh", "-c", "echo $KEY", secrets=[secret], **backend)
    assert sandbox.stdout.read() == f"{VALUE}\n"
    assert [s.name for s in modal.Secret.objects.list(client=again.client)] == ["mine"]
    with pytest.raises(NotFoundError):
        again.create("true", secrets=[modal.Secret.from_name("mine", required_keys=["NO"])])
    modal.Secret.objects.delete("mine", client=again.client)
    with pytest.raises(NotFoundError):
        again.create("true", secrets=[modal.Secret.from_name("mine")], **backend)


def test_a_record_has_the_names_of_variables_only(sdk: Sdk) -> None:
    sdk.create("true", env={"NAME": VALUE}).wait()
    database = sqlite3.connect(sdk.info.state_dir / "state.sqlite3")
    (document,) = database.execute("SELECT document FROM sandboxes").fetchone()
    database.close()
    assert "NAME" in document and VALUE not in document
