"""Run a command in a running sandbox, with this process's standard streams or terminal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import select
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from modalrun.errors import ConnectionLostError, Interrupted
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.run.contract import EXIT_KILLED
from modalrun.util import interrupts
from modalrun.util.modal_catalog import VARIABLE

if TYPE_CHECKING:
    import modal

Write = Callable[[Literal["stdout", "stderr"], bytes], None]

_READ_SIZE = 64 * 1024

_HANG_UP_SECONDS = 5.0
"""How long the signal to the command may take when this process is ended."""

_END_SECONDS = 3.0
"""How long after its commands a sandbox may end."""

_MARK = "MODALRUN_EXEC"
"""The variable by which the processes of a command are found.

Modal's API can neither end them nor change the size of their terminal (1.6.4)."""

_EACH = """
for process in /proc/[0-9]*; do
  tr '\\0' '\\n' < "$process/environ" | grep -qx "$0" && %s
done 2>/dev/null
"""
_HANG_UP = _EACH % 'kill -HUP "${process#/proc/}"'
_RESIZE = _EACH % 'stty rows "$1" cols "$2" < "$process/fd/0" && break'

_SHELL = "[ ! -x /bin/bash ] || exec /bin/bash; exec /bin/sh"


def run_command(
    connection: Connection,
    sandbox_id: str,
    run_id: str,
    command: Sequence[str],
    write: Write,
    *,
    environment: Mapping[str, str],
    without: Sequence[str],
    stdin: int,
    terminal: bool,
) -> int:
    """Run a command to its end; return its exit code, 137 if the sandbox has ended with it.

    Args:
        connection: To Modal.
        sandbox_id: The sandbox.
        run_id: The run that it must belong to.
        command: Program and arguments; empty for a shell.
        write: Receives the output.
        environment: Variables that it gets beside those of the sandbox, if Modal takes their names.
        without: Variables of the sandbox that it does not get.
        stdin: The descriptor of the input.
        terminal: Whether the command gets a terminal, with the size of this one.

    Raises:
        ForeignSandboxError: The sandbox is not the run's.
        NotFoundError: It has ended before.
        ConnectionLostError: The connection is lost; the command may go on.
    """
    from modal.exception import ConflictError, NotFoundError

    sandbox = connection.attach(sandbox_id, run_id)
    mark = uuid4().hex
    own = {name: value for name, value in environment.items() if re.fullmatch(VARIABLE, name)}
    lost: list[OSError] = []

    def write_or_leave(stream: Literal["stdout", "stderr"], data: bytes) -> None:
        try:
            write(stream, data)
        except OSError as error:
            # Not one of the connection to Modal.
            lost.append(error)
            raise

    script = f'unset {" ".join(without)}; [ $# = 0 ] || exec "$@"; {_SHELL}'
    try:
        with translated():
            process: modal.container_process.ContainerProcess[Any] = sandbox.exec(
                *("/bin/sh", "-c", script, "exec", *command),
                env={**own, _MARK: mark},
                pty=terminal,
                text=False,
            )
            try:
                resize = functools.partial(_resize, sandbox, mark, stdin) if terminal else None
                return asyncio.run(_converse(process, stdin, write_or_leave, resize))
            except (ConflictError, NotFoundError):
                # Modal may have forgotten the command before it says how that has ended.
                return EXIT_KILLED
            except BaseException as error:
                if lost or isinstance(error, KeyboardInterrupt | Interrupted):
                    interrupts.within(_HANG_UP_SECONDS, lambda: _hang_up(sandbox, mark))
                raise
    except ConnectionLostError:
        if lost:
            raise lost[0] from None
        raise


def has_ended(connection: Connection, sandbox_id: str, run_id: str) -> bool:
    """Return whether the sandbox of a run has ended, or does so within a moment.

    Its commands end a little before it.

    Raises:
        ForeignSandboxError: It is not the run's.
        ConnectionLostError: Modal can't be asked.
    """
    from modal.exception import SandboxTimeoutError

    sandbox = connection.attach(sandbox_id, run_id)

    async def ended() -> None:
        wait = sandbox.wait.aio(raise_on_termination=False)
        with contextlib.suppress(asyncio.TimeoutError, SandboxTimeoutError):
            await asyncio.wait_for(wait, _END_SECONDS)

    with translated():
        asyncio.run(ended())
        return sandbox.poll() is not None


def _hang_up(sandbox: modal.Sandbox, mark: str) -> None:
    """Send SIGHUP to what a command has started, as the end of a terminal would."""
    with contextlib.suppress(Exception):
        sandbox.exec("/bin/sh", "-c", _HANG_UP, f"{_MARK}={mark}").wait()


async def _resize(sandbox: Any, mark: str, terminal: int, changed: asyncio.Event) -> None:
    """Give a command's terminal the size of this one whenever it changes, if that is possible."""
    while await changed.wait():
        changed.clear()
        columns, lines = os.get_terminal_size(terminal)
        words = (_RESIZE, f"{_MARK}={mark}", str(lines), str(columns))
        with contextlib.suppress(Exception):
            await (await sandbox.exec.aio("/bin/sh", "-c", *words)).wait.aio()


async def _converse(
    process: Any,
    stdin: int,
    write: Write,
    resize: Callable[[asyncio.Event], Coroutine[Any, Any, None]] | None,
) -> int:
    left, leave = os.pipe()
    beside = [asyncio.create_task(_feed(process, stdin, left))]
    if resize is not None:
        changed = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
        beside.append(asyncio.create_task(resize(changed)))
    pumps = [
        asyncio.create_task(_pump(process.stdout, lambda data: write("stdout", data))),
        asyncio.create_task(_pump(process.stderr, lambda data: write("stderr", data))),
    ]
    try:
        await asyncio.gather(*pumps)
        return int(await process.wait.aio())
    finally:
        os.close(leave)
        for task in (*beside, *pumps):
            task.cancel()
        await asyncio.gather(*beside, *pumps, return_exceptions=True)
        os.close(left)


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
    # A command may end without reading all of its input.
    with contextlib.suppress(ConflictError, NotFoundError):
        while data and (data := await asyncio.to_thread(read)) is not None:
            if data:
                process.stdin.write(data)
            else:
                process.stdin.write_eof()
            await process.stdin.drain.aio()
