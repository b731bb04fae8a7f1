"""The first process of a sandbox, with small children in place of the runner; all real processes.

The children are modules in a temporary folder. A `sitecustomize` beside them stands in for
`modalrun.driver.finalize`, which would start ZenML: it writes down what it was called with.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from modalrun.driver.supervisor import margin
from modalrun.run.contract import EXIT_TERMINATED

FINALIZE = """
import os, sys
if "modalrun.driver.finalize" in sys.orig_argv:
    with open(os.environ["FINALIZED"], "a") as file:
        file.write(os.environ["MODALRUN_RUN_ID"] + ": " + sys.orig_argv[-1])
    os._exit(0)
"""

QUICK = """
import os, sys
from modalrun.driver import supervisor
supervisor.TERMINATE_GRACE_SECONDS = supervisor.DRAIN_SECONDS = 0.3
code = supervisor.main()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""
"""The supervisor's own last lines, with shorter waits."""


class Bench:
    """Run children under the supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finalized_file = folder / "finalized"
        (folder / "sitecustomize.py").write_text(FINALIZE, encoding="utf-8")
        (folder / "tmp").mkdir()

    def command(self, child: str, *, quick: bool) -> list[str]:
        (self.folder / "child.py").write_text(textwrap.dedent(child), encoding="utf-8")
        how = ["-c", QUICK] if quick else ["-m", "modalrun.driver.supervisor"]
        return [sys.executable, *how, "child"]

    def environment(
        self, timeout: float, run_id: str | None, step: str | None = None
    ) -> dict[str, str]:
        environment = {
            **os.environ,
            "MODALRUN_TIMEOUT": str(timeout),
            "FINALIZED": str(self.finalized_file),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path]),
        }
        for name in ("MODALRUN_RUN_ID", "MODALRUN_STEP"):
            environment.pop(name, None)
        if step is not None:
            environment["MODALRUN_STEP"] = step
        if run_id is not None:
            environment["MODALRUN_RUN_ID"] = run_id
        return environment

    def run(
        self,
        child: str,
        *,
        timeout: float = 100,
        run_id: str | None = "some-run",
        step: str | None = None,
        quick: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(child, quick=quick),
            env=self.environment(timeout, run_id, step),
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=60,
        )

    @contextmanager
    def started(self, child: str, *, quick: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        """A supervisor whose child has printed `ready` and sits in what comes after it."""
        with subprocess.Popen(
            self.command(child, quick=quick),
            env=self.environment(100, "some-run"),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
            process.wait(30)

    def finalized(self) -> str | None:
        """Return what finalize was called with; None if it was not called."""
        return self.finalized_file.read_text("utf-8") if self.finalized_file.exists() else None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("code", [0, 1, 143])
def test_exit_codes_of_a_runner_that_has_recorded_its_end(bench: Bench, code: int) -> None:
    done = bench.run(f"print('said'); raise SystemExit({code})")
    assert done.returncode == code
    assert done.stdout == b"said\n"
    assert done.stderr == b""
    assert bench.finalized() is None


@pytest.mark.parametrize(
    ("child", "code", "reason"),
    [
        ("raise SystemExit(3)", 1, "The runner ended with exit code 3."),
        ("raise SystemExit(70)", 1, "The runner ended with exit code 70."),
        ("import os; os._exit(137)", 1, "The runner ended with exit code 137."),
        ("import os; os.kill(os.getpid(), 9)", 137, "The runner was killed (SIGKILL)."),
        ("import os; os.abort()", 1, "The runner died of SIGABRT."),
        ("import ctypes; ctypes.string_at(0)", 1, "The runner died of SIGSEGV."),
    ],
)
def test_child_that_dies_without_recording_its_end(
    bench: Bench, child: str, code: int, reason: str
) -> None:
    done = bench.run(f"print('last words', flush=True)\n{child}")
    assert done.returncode == code
    assert done.stdout == b"last words\n"
    assert done.stderr.decode().endswith(f"modalrun: {reason}\n")
    assert bench.finalized() == f"some-run: {reason}"


def test_child_that_dies_of_a_real_time_signal(bench: Bench) -> None:
    done = bench.run("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert bench.finalized() is not None


def test_nothing_is_finalized_without_a_run(bench: Bench) -> None:
    done = bench.run("raise SystemExit(3)", run_id=None)
    assert done.returncode == 1
    assert bench.finalized() is None


# Signals.

WAITING = """
import os, signal, time
def end(signum, frame):
    # Not print: the signal may come while that is at work.
    os.write(1, b"told\\n")
    os._exit({code})
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
# A signal just before `signal.pause` would not end it.
while True:
    time.sleep(0.01)
"""


EARLY = """
import os, signal
from modalrun.driver import supervisor
start = supervisor._start
def late(environment):
    os.kill(os.getpid(), signal.SIGHUP)
    return start(environment)
supervisor._start = late
os._exit(supervisor.main())
"""
"""A signal comes before there is a child."""


def test_a_signal_that_arrives_before_the_child_starts(bench: Bench) -> None:
    command = bench.command("import signal\nsignal.pause()", quick=False)
    done = subprocess.run(
        [command[0], "-c", EARLY, command[-1]],
        env=bench.environment(100, "some-run"),
        cwd=bench.folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == EXIT_TERMINATED, done.stderr
    assert bench.finalized() is not None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(bench: Bench, signum: signal.Signals) -> None:
    with bench.started(WAITING.format(code=143)) as process:
        process.send_signal(signum)
        assert process.stdout is not None
        assert process.stdout.read() == b"told\n"
    assert process.returncode == 143
    assert bench.finalized() is None


def test_child_that_completes_after_a_termination_signal(bench: Bench) -> None:
    with bench.started(WAITING.format(code=0)) as process:
        process.terminate()
    assert process.returncode == 0
    assert bench.finalized() is None


def test_child_that_dies_of_the_termination(bench: Bench) -> None:
    with bench.started("import signal\nprint('ready', flush=True)\nsignal.pause()") as process:
        process.terminate()
        assert process.stderr is not None
        assert process.stderr.read() == b"modalrun: The sandbox received a termination signal.\n"
    assert process.returncode == 143
    assert bench.finalized() == "some-run: The sandbox received a termination signal."


IGNORING = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_child_that_ignores_the_termination(bench: Bench) -> None:
    with bench.started(IGNORING, quick=True) as process:
        process.terminate()
    assert process.returncode == 143
    assert bench.finalized() == "some-run: The sandbox received a termination signal."


# The deadline.


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(1, 0.5), (5, 0.5), (60, 6.0), (300, 30.0), (86_400, 30.0)]
)
def test_margin(timeout: float, seconds: float) -> None:
    assert margin(timeout) == pytest.approx(seconds)


def test_at_the_deadline_the_child_reads_why(bench: Bench) -> None:
    began = time.monotonic()
    done = bench.run(
        """
        import os, pathlib, signal, time
        def end(signum, frame):
            text = pathlib.Path(os.environ["MODALRUN_END_REASON_FILE"]).read_text()
            os.write(1, (text + "\\n").encode())
            os._exit(143)
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
        """,
        timeout=2.5,
    )
    assert time.monotonic() - began >= 2.5 - margin(2.5)
    reason = b"The run took longer than its timeout of 2.5 s."
    assert done.returncode == 124
    assert done.stdout == b"ready\n" + reason + b"\n"
    assert done.stderr == b"modalrun: " + reason + b"\n"
    assert bench.finalized() is None, "the child has recorded its end itself"


def test_child_that_ignores_the_deadline(bench: Bench) -> None:
    done = bench.run(IGNORING, timeout=2)
    assert done.returncode == 124
    assert bench.finalized() == "some-run: The run took longer than its timeout."


# In a step sandbox.

SAYING = "from modalrun.driver.step import end\nend({code})"


@pytest.mark.parametrize("code", [0, 1, 70, 143])
def test_exit_codes_that_a_step_process_has_written(bench: Bench, code: int) -> None:
    done = bench.run(SAYING.format(code=code), step="train")
    assert done.returncode == code
    assert bench.finalized() is None


@pytest.mark.parametrize("code", [0, 1, 70, 143])
def test_exit_codes_of_user_code_that_calls_os_exit(bench: Bench, code: int) -> None:
    done = bench.run(f"import os; os._exit({code})", step="train")
    assert done.returncode == 1
    assert bench.finalized() == f"some-run: The step's process ended with exit code {code}."


@pytest.mark.parametrize(
    ("child", "code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", 137, None),
        ("import os; os.abort()", 1, "The step's process died of SIGABRT."),
    ],
)
def test_a_killed_step_is_left_to_the_driver(
    bench: Bench, child: str, code: int, reason: str | None
) -> None:
    done = bench.run(child, step="train")
    assert done.returncode == code
    assert bench.finalized() == (reason and f"some-run: {reason}")


def test_a_step_that_ignores_its_deadline_has_failed(bench: Bench) -> None:
    done = bench.run(IGNORING, timeout=2, step="train")
    assert done.returncode == 124
    assert bench.finalized() == "some-run: The step took longer than its timeout."


def test_a_step_that_could_not_record_its_end_at_the_deadline_has_failed(bench: Bench) -> None:
    child = """
    import signal, time
    from modalrun.driver.step import end
    signal.signal(signal.SIGTERM, lambda *_: end(70))
    while True:
        time.sleep(0.01)
    """
    done = bench.run(child, timeout=3, step="train")
    assert done.returncode == 124
    assert bench.finalized() == "some-run: The step took longer than its timeout."


# What the child prints.


def test_flood_on_both_streams(bench: Bench) -> None:
    done = bench.run(
        """
        import os, threading
        # Four bytes a character, moved by one byte: chunks end in the middle of characters.
        data = b"x" + "\\N{GRINNING FACE}".encode() * 1_250_000
        def flood(descriptor):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest):]
        threads = [threading.Thread(target=flood, args=(d,)) for d in (1, 2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    expected = b"x" + "\N{GRINNING FACE}".encode() * 1_250_000
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
        """
    )
    expected = "😀 �� �( \0 \x1b[31m \r\n�"
    assert done.stdout.decode("utf-8") == expected
    assert done.stderr.decode("utf-8") == expected


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
        bench.command(child, quick=True),
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


# The child's world.


def test_environment_of_the_child(bench: Bench) -> None:
    done = bench.run(
        """
        import json, os, sys
        print(json.dumps([dict(os.environ), os.getcwd(), sys.stdin.read()]))
        """
    )
    environment, folder, stdin = json.loads(done.stdout)
    home = Path(environment["HOME"])
    assert home.parent == bench.folder / "tmp", "a private home, not the user's"
    assert home.stat().st_mode & 0o077 == 0
    assert Path(environment["ZENML_CONFIG_PATH"]).parent == home
    assert Path(environment["ZENML_CONFIG_PATH"]).is_dir()
    assert environment["ZENML_CUSTOM_SOURCE_ROOT"] == folder == str(bench.folder)
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["MODALRUN_RUN_ID"] == "some-run"
    assert stdin == ""


def test_a_request_to_stop_reaches_the_child(bench: Bench) -> None:
    child = """
        import subprocess, sys, threading
        from modalrun.driver import control
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
