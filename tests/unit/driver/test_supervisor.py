"""The supervisor: exit codes, signals, the deadline and step sandboxes; all real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from modalrun.driver import supervisor
from modalrun.driver.processes import child_environment
from modalrun.driver.processes.deadline import margin
from modalrun.run.contract import (
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_UNPREPARED,
    PREEMPTED_REASON,
)
from tests.unit.driver.supervisor_bench import DEADLINE, DRIVER, LAST, QUICK, WAITING, Bench

SAYING = "from modalrun.driver.processes.process import leave\nleave({code})"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "code"
    folder.mkdir()
    return Bench(folder)


@pytest.mark.parametrize("code", [0, 1, 143])
def test_exit_codes_of_a_runner_that_has_recorded_its_end(bench: Bench, code: int) -> None:
    done = bench.run("print('said')\n" + SAYING.format(code=code))
    assert done.returncode == code
    assert done.stdout == b"said\n"
    assert done.stderr == b""
    assert bench.finalized() is None


@pytest.mark.parametrize(
    ("child", "code", "reason"),
    [
        ("import os; os._exit(0)", 1, "The runner ended with exit code 0."),
        ("import os; os._exit(143)", 1, "The runner ended with exit code 143."),
        ("raise SystemExit(3)", 1, "The runner ended with exit code 3."),
        ("raise SystemExit(70)", 1, "The runner ended with exit code 70."),
        ("import os; os._exit(137)", 1, "The runner ended with exit code 137."),
        ("import os; os.kill(os.getpid(), 9)", 1, "The runner was killed (SIGKILL)."),
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
"""A supervisor that gets a signal before its child starts."""


def test_a_signal_that_arrives_before_the_child_starts(bench: Bench) -> None:
    command = bench.command("import signal\nsignal.pause()")
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


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_signals_are_passed_on_once(bench: Bench, signum: signal.Signals, code: int) -> None:
    with bench.started(WAITING.format(code=143), group=True) as process:
        # As the init of a sandbox does.
        os.killpg(process.pid, signum)
        os.killpg(process.pid, signum)
        assert process.stdout is not None
        assert process.stdout.read() == b"told\n" + LAST
    assert process.returncode == code
    assert bench.finalized() is None


def test_a_preempted_run_is_recorded_as_that_while_signals_come(bench: Bench) -> None:
    (bench.folder / "slow").touch()
    waiting = "import signal\nprint('ready', flush=True)\nsignal.pause()"
    with bench.started(waiting, group=True) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == f"modalrun: {PREEMPTED_REASON}\n".encode()
        assert process.stderr.readline() == b"recording\n"
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGTERM)
        (bench.folder / "slow").unlink()
    assert process.returncode == EXIT_INTERRUPTED
    assert bench.finalized() == f"some-run: {PREEMPTED_REASON}"


def test_a_preempted_driver_leaves_its_steps_and_the_record(bench: Bench) -> None:
    with bench.started(WAITING.format(code=143), first=DRIVER + QUICK) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        # SIGTERM would have it end the steps.
        assert process.stdout.read() == b""
    assert process.returncode == EXIT_INTERRUPTED
    assert bench.finalized() is None


def test_a_preempted_step_is_left_to_the_driver(bench: Bench) -> None:
    waiting = "import signal\nprint('ready', flush=True)\nsignal.pause()"
    with bench.started(waiting, step="train") as process:
        process.send_signal(signal.SIGINT)
    assert process.returncode == EXIT_INTERRUPTED
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
        said = b"modalrun: The sandbox received a termination signal.\n"
        assert process.stderr.read() == said + LAST
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
    with bench.started(IGNORING, first=QUICK) as process:
        process.terminate()
    assert process.returncode == 143
    assert bench.finalized() == "some-run: The sandbox received a termination signal."


# The deadline.


def test_at_the_deadline_the_child_reads_why(bench: Bench) -> None:
    done = bench.run(
        """
        import os, pathlib, signal, time
        from modalrun.driver.processes.process import leave
        def end(signum, frame):
            text = pathlib.Path(os.environ["MODALRUN_END_REASON_FILE"]).read_text()
            os.write(1, (text + "\\n").encode())
            leave(143)
        signal.signal(signal.SIGTERM, end)
        print("ready", flush=True)
        pathlib.Path("ready").touch()
        while True:
            time.sleep(0.01)
        """,
        timeout=20,
        first=DEADLINE,
    )
    left = float((bench.folder / "left").read_text())
    assert 0 < left <= 20 - margin(20)
    reason = b"The run took longer than its timeout of 20 s."
    assert done.returncode == 124
    assert done.stdout == b"ready\n" + reason + b"\n"
    assert done.stderr == b"modalrun: " + reason + b"\n"
    assert bench.finalized() is None, "the child has recorded its end itself"


def test_the_driver_can_end_a_step_as_at_its_own_deadline(bench: Bench) -> None:
    child = """
    import os, pathlib, signal, sys, time
    from modalrun.driver.processes.process import Signals, leave, supervisors_reason
    assert sys.stdin.read() == ""
    signals = Signals()
    signal.signal(signal.SIGTERM, signals)
    try:
        with signals.in_user_code():
            print("ready", flush=True)
            while True:
                time.sleep(0.01)
    finally:
        os.write(1, supervisors_reason().encode())
        leave(1)
    """
    with bench.started(child, step="train") as process:
        assert process.stdin is not None
        process.stdin.write(b"something else\nend The run took too long.\n")
        process.stdin.flush()
        assert process.wait(30) == 1
        assert process.stdout is not None
        assert process.stdout.readline() == b"The run took too long.\n"
    assert bench.finalized() is None, "the child has recorded its end itself"


def test_a_step_that_is_being_ended_keeps_its_reason_at_its_own_deadline(bench: Bench) -> None:
    child = """
    import os, pathlib, signal, time
    first = pathlib.Path("ready")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(3) if first.exists() else first.touch())
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
    """
    with bench.started(child, step="train", first=DEADLINE) as process:
        _, said = process.communicate(b"end The run took too long.\n", timeout=60)
    assert process.returncode == EXIT_TERMINATED
    assert b"timeout" not in said


@pytest.mark.parametrize("module", ["pipeline", "dynamic", "per_step", "step"])
def test_a_supervisor_without_room_for_its_files_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str
) -> None:
    def full() -> dict[str, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(child_environment, "create", full)
    monkeypatch.setattr(supervisor, "privileges", Mock())
    monkeypatch.setattr(signal, "signal", Mock())
    monkeypatch.setattr(sys, "argv", ["supervisor", f"modalrun.driver.{module}"])
    if module == "step":
        monkeypatch.setenv("MODALRUN_STEP", "train")
    finalize = Mock()
    monkeypatch.setattr(subprocess, "run", finalize)
    # Also in the fork of a step worker, which knows no SystemExit.
    assert supervisor.main() == EXIT_UNPREPARED
    assert "can't start: [Errno 28] No space left" in capsys.readouterr().err
    # A driver is left to another one, and a step to its driver.
    recorded = [call.args[0][3] for call in finalize.mock_calls]
    alone = module in {"pipeline", "dynamic"}
    assert recorded == ["The run can't start: [Errno 28] No space left on device."] * alone


def test_child_that_ignores_the_deadline(bench: Bench) -> None:
    done = bench.run(IGNORING, timeout=2)
    assert done.returncode == 124
    assert bench.finalized() == "some-run: The run took longer than its timeout of 2 s."


# In a step sandbox.


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
    ("child", "reason"),
    [
        ("os.kill(os.getpid(), 9)", "The step's process was killed (SIGKILL)."),
        ("os.kill(os.getpid(), 15)", "The step's process died of SIGTERM."),
        ("os.kill(0, 15)", "The step's process died of SIGTERM."),
        ("os.abort()", "The step's process died of SIGABRT."),
    ],
)
def test_a_step_that_sends_itself_a_signal_has_failed(
    bench: Bench, child: str, reason: str
) -> None:
    done = bench.run(f"import os; {child}", step="train")
    assert done.returncode == 1
    assert bench.finalized() == f"some-run: {reason}"


def test_a_step_that_is_ended_from_outside_is_left_to_the_driver(bench: Bench) -> None:
    waiting = "import signal\nprint('ready', flush=True)\nsignal.pause()"
    with bench.started(waiting, step="train") as process:
        process.terminate()
    assert process.returncode == 143
    assert bench.finalized() is None


def test_a_runner_that_a_step_kills_is_a_failure(bench: Bench) -> None:
    """Its workers are its children, so a step can do it, and nobody else does."""
    child = "import os\nif os.fork() == 0: os.kill(os.getppid(), 9); os._exit(0)\nos.wait()"
    done = bench.run(child)
    assert done.returncode == 1
    assert bench.finalized() == "some-run: The runner was killed (SIGKILL)."


@pytest.mark.parametrize("hook", ["init", "cleanup"])
def test_a_hook_that_ends_the_process_is_named(bench: Bench, hook: str) -> None:
    child = f"""
import os
from modalrun.run import notes
with notes.during("hook", "init"):
    pass
with notes.during("hook", "{hook}"):
    os._exit(5)
"""
    assert bench.run(child).returncode == 1
    reason = f"The {hook} hook's process ended with exit code 5."
    assert bench.finalized() == f"some-run: {reason}"


def test_a_step_that_ignores_its_deadline_has_failed(bench: Bench) -> None:
    done = bench.run(IGNORING, timeout=2, step="train")
    assert done.returncode == 124
    assert bench.finalized() == "some-run: The step took longer than its timeout of 2 s."


def test_a_step_that_could_not_record_its_end_at_the_deadline_has_failed(bench: Bench) -> None:
    child = """
    import signal, time
    from modalrun.driver.processes.process import leave
    signal.signal(signal.SIGTERM, lambda *_: leave(70))
    while True:
        time.sleep(0.01)
    """
    done = bench.run(child, timeout=3, step="train")
    assert done.returncode == 124
    assert bench.finalized() == "some-run: The step took longer than its timeout of 3 s."


@pytest.mark.parametrize(
    "replace",
    ["os.mkfifo(file)", "os.symlink('/dev/zero', file)", "open(file, 'w').write('9' * 10**6)"],
    ids=["pipe", "link", "large"],
)
def test_a_file_of_ours_that_user_code_replaces_stops_nothing(bench: Bench, replace: str) -> None:
    done = bench.run(
        f"import os\nfile = os.environ['MODALRUN_EXIT_CODE_FILE']\nos.remove(file)\n{replace}\n"
        "os._exit(0)"
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
