"""The supervisor: output, environment and control of the child; all real processes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.driver.supervisor_bench import LAST, QUICK, WAITING, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "code"
    folder.mkdir()
    return Bench(folder)


def test_flood_on_both_streams(bench: Bench) -> None:
    done = bench.run(
        """
        import os, threading
        from modalrun.driver.processes.process import leave
        # Four bytes a character, moved by one byte: chunks end in the middle of characters.
        data = b"x" + "\\N{GRINNING FACE}".encode() * 1_250_000
        def flood(descriptor):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest):]
        threads = [threading.Thread(target=flood, args=(d,)) for d in (1, 2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        leave(0)
        """
    )
    # The last line of the supervisor has a line of its own.
    expected = b"x" + "\N{GRINNING FACE}".encode() * 1_250_000 + b"\n"
    assert done.returncode == 0
    for output in (done.stdout, done.stderr):
        assert len(output) == len(expected)
        assert hashlib.sha256(output).digest() == hashlib.sha256(expected).digest()


def test_invalid_utf_8_is_replaced(bench: Bench) -> None:
    done = bench.run(
        r"""
        import os
        face = b"\xf0\x9f", b"\x98\x80 "
        for piece in (*face, b"\xff\xfe ", b"\xc3", b"( \0 \x1b[31m \r\n", b"\xe2\x82"):
            os.write(1, piece)
            os.write(2, piece)
        from modalrun.driver.processes.process import leave
        leave(0)
        """
    )
    expected = "😀 �� �( \0 \x1b[31m \r\n�\n"
    assert done.stdout.decode("utf-8") == expected
    assert done.stderr.decode("utf-8") == expected


def test_the_last_line_of_both_streams_says_that_nothing_follows(bench: Bench) -> None:
    done = subprocess.run(
        bench.command("print('no line feed', end='')"),
        env=bench.environment(100, None),
        cwd=bench.folder,
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"no line feed\n" + LAST
    assert done.stderr.endswith(b"\n" + LAST)


def test_output_arrives_while_the_child_runs(bench: Bench) -> None:
    with bench.started(WAITING.format(code=143)) as process:
        assert process.poll() is None
        process.terminate()


def test_supervisor_ends_although_a_grandchild_holds_the_pipes(bench: Bench) -> None:
    child = """
    import os, subprocess
    grandchild = subprocess.Popen(["sleep", "60"])
    print(grandchild.pid, flush=True)
    os._exit(1)
    """
    with subprocess.Popen(
        bench.command(child, QUICK),
        env=bench.environment(100, None),
        cwd=bench.folder,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        try:
            assert process.wait(20) == 1
            os.kill(grandchild, 0)
        finally:
            with suppress(ProcessLookupError):
                os.kill(grandchild, signal.SIGKILL)


def test_environment_of_the_child(bench: Bench) -> None:
    done = bench.run(
        """
        import json, os, sys
        print(json.dumps([dict(os.environ), os.getcwd(), sys.stdin.read()]))
        """
    )
    environment, folder, stdin = json.loads(done.stdout)
    assert environment["HOME"] == os.environ["HOME"], "that of the image"
    own = Path(environment["ZENML_CONFIG_PATH"]).parent
    assert own.parent == bench.folder.parent
    assert own.stat().st_mode & 0o077 == 0
    assert Path(environment["ZENML_CONFIG_PATH"]).is_dir()
    assert environment["ZENML_CUSTOM_SOURCE_ROOT"] == folder == str(bench.folder)
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    for name in ("END_REASON_FILE", "STOP_FILE", "EXIT_CODE_FILE"):
        # Not in the temporary folder or the home, which a step may empty.
        assert Path(environment[f"MODALRUN_{name}"]).parent == own
    assert environment["MODALRUN_RUN_ID"] == "some-run"
    assert stdin == ""


def test_a_request_to_stop_reaches_the_child(bench: Bench) -> None:
    child = """
        import subprocess, sys, threading
        from modalrun.driver.processes import control
        asked = threading.Event()
        control.listen(asked.set)
        subprocess.run([sys.executable, "-c", "input()"], stderr=subprocess.DEVNULL)
        print("ready", flush=True)
        print("asked" if asked.wait(20) else "not asked")
        # As a driver that takes over in the same sandbox.
        again = threading.Event()
        control.listen(again.set)
        print("told" if again.is_set() else "not told")
        """
    with bench.started(child) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"something newer\nstop\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"asked\n"
        assert process.stdout.readline() == b"told\n"


def test_neither_sdk_is_imported() -> None:
    code = (
        "import sys, modalrun.driver.supervisor\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"'zenml'", "'modal'", "'rich'", "'yaml'", "'pydantic'"} & set(
        done.stdout.strip("[]\n").split(", ")
    )
