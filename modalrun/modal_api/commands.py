"""Run a command in a running sandbox, with this process's standard streams or terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated

if TYPE_CHECKING:
    import modal

Write = Callable[[Literal["stdout", "stderr"], bytes], None]

_READ_SIZE = 64 * 1024

_CLOSE_SECONDS = 2.0
"""How long the command may take to be told that its input has ended, when this process ends."""

_SHELL = "[ ! -x /bin/bash ] || exec /bin/bash; exec /bin/sh"


def run_command(
    connection: Connection,
    sandbox_id: str,
    run_id: str,
    command: Sequence[str],
    write: Write,
    *,
    without: Sequence[str],
    stdin: int,
    terminal: bool,
) -> int:
    """Run a command to its end; return its exit code.

    Args:
        connection: To Modal.
        sandbox_id: The sandbox.
        run_id: The run that it must belong to.
        command: Program and arguments; empty for a shell.
        write: Receives the output.
        without: Variables of the sandbox that it does not get.
        stdin: The descriptor of the input.
        terminal: Whether the command gets a terminal, of the size of this one.

    Raises:
        ForeignSandboxError: The sandbox is not the run's.
        NotFoundError: It has ended.
        ConnectionLostError: The connection is lost; the command may go on.
    """
    sandbox = connection.attach(sandbox_id, run_id)
    script = f'unset {" ".join(without)}; [ $# = 0 ] || exec "$@"; {_SHELL}'
    with translated():
        process: modal.container_process.ContainerProcess[Any] = sandbox.exec(
            *("/bin/sh", "-c", script, "exec", *command), pty=terminal, text=False
        )
        return asyncio.run(_converse(process, stdin, write))


async def _converse(process: Any, stdin: int, write: Write) -> int:
    left, leave = os.pipe()
    feeding = asyncio.create_task(_feed(process, stdin, left))
    pumps = [
        asyncio.create_task(_pump(process.stdout, lambda data: write("stdout", data))),
        asyncio.create_task(_pump(process.stderr, lambda data: write("stderr", data))),
    ]
    ended = False
    try:
        await asyncio.gather(*pumps)
        code = int(await process.wait.aio())
        ended = True
        return code
    finally:
        os.close(leave)
        for task in (feeding, *pumps):
            task.cancel()
        await asyncio.gather(feeding, *pumps, return_exceptions=True)
        os.close(left)
        if not ended:
            with contextlib.suppress(Exception):
                process.stdin.write_eof()
                await asyncio.wait_for(process.stdin.drain.aio(), _CLOSE_SECONDS)


async def _pump(stream: Any, write: Callable[[bytes], None]) -> None:
    async for data in stream:
        write(data)


async def _feed(process: Any, stdin: int, left: int) -> None:
    """Pass on the input, until it or the command ends."""
    from modal.exception import ConflictError, NotFoundError

    def read() -> bytes | None:
        ready, _, _ = select.select([stdin, left], [], [])
        if left in ready:
            return None
        try:
            return os.read(stdin, _READ_SIZE)
        except OSError:
            # The terminal is gone.
            return b""

    data: bytes | None = b"more"
    # A command that does not read all of its input is none of our faults.
    with contextlib.suppress(ConflictError, NotFoundError):
        while data and (data := await asyncio.to_thread(read)) is not None:
            if data:
                process.stdin.write(data)
            else:
                process.stdin.write_eof()
            await process.stdin.drain.aio()
