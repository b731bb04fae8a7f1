"""What becomes of a command whose sandbox ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from modal.exception import ConflictError, NotFoundError

from modalrun import errors
from modalrun.modal_api.commands import run_command


class Stream:
    """The output of a command that prints nothing."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for data in ():
            yield data


def run(wait: Any = None, begin: Exception | None = None) -> int:
    process = SimpleNamespace(
        stdout=Stream(), stderr=Stream(), stdin=None, wait=SimpleNamespace(aio=wait)
    )

    def execute(*_: Any, **__: Any) -> Any:
        if begin is not None:
            raise begin
        return process

    connection: Any = SimpleNamespace(attach=lambda *_: SimpleNamespace(exec=execute))
    read, write = os.pipe()
    try:
        return run_command(
            *(connection, "sb-1", "run", ["true"], lambda *_: None),
            environment={},
            without=(),
            stdin=read,
            terminal=False,
        )
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("error", [NotFoundError("gone"), ConflictError("finished")])
def test_a_command_has_been_killed_if_its_sandbox_is_gone_before_its_end_is_told(
    error: Exception,
) -> None:
    async def wait() -> int:
        raise error

    assert run(wait) == 137


def test_a_command_that_could_not_begin_has_no_exit_code() -> None:
    with pytest.raises(errors.NotFoundError):
        run(begin=NotFoundError("gone"))
