"""Further commands in a running sandbox: `Sandbox.exec` by the unmodified SDK."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import modal
import psutil
import pytest
from modal.exception import ConflictError, InvalidError, NotFoundError
from modal.stream_type import StreamType

from .support import PATIENCE, START_DAEMON, Sdk, kill_server
from .test_commands import MODAL


@pytest.fixture
def sandbox(sdk: Sdk) -> modal.Sandbox:
    """A sandbox that waits."""
    return sdk.create("sleep", "1000", env={"OF_SANDBOX": "1", "BOTH": "1"})


def shell(sandbox: modal.Sandbox, script: str, **options: Any) -> tuple[str, str, int]:
    """Run a script; its stdout, stderr and exit code."""
    process = sandbox.exec("sh", "-c", script, **options)
    return process.stdout.read(), process.stderr.read(), process.wait()


@pytest.mark.parametrize("backend", [{}, pytest.param({"gpu": "T4"}, marks=pytest.mark.exhaustive)])
def test_a_command_has_streams_environment_and_an_exit_code(
    sdk: Sdk, backend: dict[str, Any]
) -> None:
    secret = modal.Secret.from_dict({"OF_SECRET": "s", "BOTH": "2"})
    sandbox = sdk.create("sleep", "1000", env={"OF_SANDBOX": "1"}, workdir="/job", **backend)
    done = shell(
        sandbox,
        'echo "$OF_SANDBOX $OF_SECRET $BOTH $OF_EXEC"; echo wrong >&2; pwd; exit 7',
        secrets=[secret],
        env={"OF_EXEC": "e", "BOTH": "3"},
    )
    assert done[0].splitlines()[0] == "1 s 3 e"
    assert done[0].splitlines()[1].endswith("/job")
    assert done[1:] == ("wrong\n", 7)
    assert shell(sandbox, "pwd", workdir="/")[2] == 0
    missing = sandbox.exec("no-such-program")
    assert (missing.wait(), missing.stderr.read()) == (
        127,
        "no-such-program: No such file or directory\n",
    )
    assert sandbox.exec("sh", "-c", "kill -9 $$").wait() == 137
    # Exec output is not the sandbox's (docs of Modal).
    sandbox.terminate()
    assert sdk.sandbox(sandbox.object_id).stdout.read() == ""


def test_the_input_arrives_to_its_end(sandbox: modal.Sandbox) -> None:
    process = sandbox.exec("cat", text=False)
    data = bytes(range(256)) * 40_000
    for place in range(0, len(data), 1_000_000):
        process.stdin.write(data[place : place + 1_000_000])
        process.stdin.drain()
    process.stdin.write_eof()
    process.stdin.drain()
    process.stdin.drain()
    assert process.stdout.read() == data
    assert process.wait() == 0
    reads_nothing = sandbox.exec("true")
    assert reads_nothing.wait() == 0
    with pytest.raises(ConflictError, match="closed"):
        while True:
            reads_nothing.stdin.write(b"x")
            reads_nothing.stdin.drain()


@pytest.mark.exhaustive
def test_many_commands_keep_exit_codes_and_what_was_not_read(
    sdk: Sdk, sandbox: modal.Sandbox
) -> None:
    unread = sandbox.exec("echo", "unread")
    server = psutil.Process(sdk.info.pid)
    done = []
    for number in range(60):
        process = sandbox.exec("sh", "-c", f"echo {number}; exit {number}")
        assert process.stdout.read() == f"{number}\n"
        assert process.stderr.read() == ""
        done.append(process)
    assert server.num_fds() < 100
    assert [process.wait() for process in done] == list(range(60))
    assert unread.stdout.read() == "unread\n"


@pytest.mark.parametrize("megabytes", [20, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_much_binary_output_that_is_read_late_is_whole(
    sandbox: modal.Sandbox, megabytes: int
) -> None:
    part = "bytes([n, 0, 255, 10]) * 250_000"
    code = f"import sys\nfor n in range({megabytes}):\n sys.stdout.buffer.write({part})"
    process = sandbox.exec("python", "-c", code, text=False)
    assert process.wait() == 0
    size = 0
    for number, chunk in enumerate(process.stdout):
        assert number or chunk[:4] == b"\x00\x00\xff\n"
        size += len(chunk)
    assert size == megabytes * 1_000_000
    assert process.stderr.read() == b""


def running(mark: str) -> int:
    """How many processes have a mark in their command lines."""
    found = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += any(mark in word for word in process.cmdline())
    return found


def wait_until_none(mark: str) -> None:
    """Wait for the end of all that have a mark."""
    end = time.monotonic() + PATIENCE
    while running(mark):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_timeout_or_the_sandbox_ends_all_that_a_command_started(sandbox: modal.Sandbox) -> None:
    began = time.monotonic()
    process = sandbox.exec("sh", "-c", "sleep 1000.123 & echo started; wait", timeout=1)
    assert process.stdout.read() == "started\n"
    assert process.wait() == -1
    assert time.monotonic() - began < PATIENCE
    wait_until_none("1000.123")

    # What a command leaves behind goes on.
    process = sandbox.exec("sh", "-c", "(trap '' HUP; exec sleep 1000.456) & echo started")
    assert process.wait() == 0
    assert process.stdout.read() == "started\n"
    assert running("1000.456") == 1
    sandbox.terminate(wait=True)
    assert running("1000.456") == 0


def test_what_a_command_leaves_behind_can_print(sandbox: modal.Sandbox) -> None:
    script = "mkfifo /tmp/go; (read x < /tmp/go; echo one; echo two >&2; echo > /tmp/alive) & echo"
    assert sandbox.exec("sh", "-c", script).wait() == 0
    # It prints faster than the server reads.
    assert sandbox.exec("sh", "-c", "yes &", timeout=PATIENCE).wait() == 0
    wait = "echo > /tmp/go; until [ -e /tmp/alive ]; do sleep 0.1; done"
    done = shell(sandbox, wait, timeout=PATIENCE)
    assert done == ("", "", 0)


def test_several_run_at_once_and_end_with_the_sandbox(sdk: Sdk) -> None:
    sandbox = sdk.create("cat")
    code = f"{START_DAEMON}print(os.read(reader, 100).decode(), flush=True)\ntime.sleep(1000.789)"
    processes = [sandbox.exec("python", "-c", code) for _ in range(4)]
    for process in processes:
        next(iter(process.stdout))
    assert [process.poll() for process in processes] == [None] * 4
    assert running("1000.789") == 8
    sandbox.stdin.write_eof()
    sandbox.stdin.drain()
    assert sandbox.wait(raise_on_termination=False) is None
    assert running("1000.789") == 0
    with pytest.raises((NotFoundError, ConflictError)):
        sdk.sandbox(sandbox.object_id).exec("true")
    with pytest.raises(NotFoundError):
        sandbox.exec("true")


@pytest.mark.exhaustive
def test_a_killed_server_leaves_nothing_of_a_command(sdk: Sdk, sandbox: modal.Sandbox) -> None:
    process = sandbox.exec("sh", "-c", "(trap '' HUP; exec sleep 2000.123) & sleep 2000.123 & wait")
    assert process.poll() is None
    assert sandbox.exec("sh", "-c", "(exec sleep 2000.123) &").wait() == 0
    while running("2000.123") < 3:
        time.sleep(0.05)
    kill_server(sdk.info)
    wait_until_none("2000.123")


@pytest.mark.exhaustive
def test_modals_commands_reach_the_sandbox(sdk: Sdk, sandbox: modal.Sandbox) -> None:
    task = sdk.record(sandbox).task_id
    # Not what they print: the SDK does not wait for that (`_sandbox._container_exec`, 1.6.4).
    say = "echo by {} >> /tmp/said"
    commands = [
        ["container", "exec", "--no-pty", "--", task, "sh", "-c", say.format("container")],
        ["shell", "--no-pty", "--cmd", f"sh -c '{say.format('shell')}'", sandbox.object_id],
    ]
    sdk.script(MODAL, json.dumps(commands))
    assert sandbox.exec("cat", "/tmp/said").stdout.read() == "by container\nby shell\n"


def test_a_terminal_has_a_size_and_is_controlled(sandbox: modal.Sandbox) -> None:
    code = "import os; print(os.isatty(0), open('/dev/tty').isatty(), os.get_terminal_size())"
    process = sandbox.exec("python", "-c", code, pty=True)
    assert process.stdout.read() == ("True True os.terminal_size(columns=80, lines=24)\r\n")
    assert (process.wait(), process.stderr.read()) == (0, "")
    process = sandbox.exec(
        "sh", "-c", "trap 'echo caught; exit 5' INT; echo go; read line", pty=True
    )
    output = iter(process.stdout)
    assert next(output) == "go\r\n"
    process.stdin.write(b"\x03")
    process.stdin.drain()
    assert "caught" in "".join(output)
    assert process.wait() == 5
    for _ in range(5):
        process = sandbox.exec("cat", pty=True)
        process.stdin.write(b"no line")
        process.stdin.write_eof()
        process.stdin.drain()
        assert (process.stdout.read(), process.wait()) == ("no lineno line", 0)

    process = sandbox.exec("sh", "-c", "echo a; echo b >&2", stdout=StreamType.DEVNULL)
    assert (process.stderr.read(), process.wait()) == ("b\n", 0)
    with pytest.raises(InvalidError, match="leaves the sandbox"):
        sandbox.exec("true", workdir="/..")
    with pytest.raises(InvalidError, match="NUL"):
        sandbox.exec("echo", "\0")
    process = sandbox.exec("true", workdir="/missing")
    assert process.wait() == 127
    assert "/missing: No such file" in process.stderr.read()
