"""What user code does to its process, each time in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys
from modalrun.zenml_api.execution import containment
from modalrun.run import notes
notes.leave = lambda subject, text: os.write(2, text.encode())
if os.getuid() == 0:
    os.setuid(65534)
{before}
try:
    with containment.contained():
        print("begins", flush=True)
        {code}
except Exception as error:
    os.write(2, f"{{type(error).__name__}}: {{error}}".encode())
    os._exit(3)
open("/dev/null").close()
os.write(2, repr([
    name for name in dir(resource) if name.startswith("RLIMIT_")
    and resource.getrlimit(getattr(resource, name))[0] in (0, 10)
    and name not in ("RLIMIT_CORE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_MSGQUEUE")
]).encode())
"""


def run(code: str, before: str = "") -> tuple[int, str]:
    """Run user code in a process without privileges; return its exit code and its last words."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(code=code, before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("limit", ["FSIZE", "NOFILE", "NPROC", "CPU"])
def test_a_lowered_limit_is_raised_again(limit: str) -> None:
    """The lower one of the two, which everybody may raise."""
    code = (
        f"number = resource.RLIMIT_{limit};"
        " resource.setrlimit(number, (10, resource.getrlimit(number)[1]))"
    )
    assert run(code) == (0, "[]")


@pytest.mark.parametrize(("limit", "value"), [("FSIZE", 10), ("NOFILE", 0), ("NOFILE", 10)])
def test_a_limit_that_is_lowered_for_good_ends_the_process(limit: str, value: int) -> None:
    exit_code, said = run(f"resource.setrlimit(resource.RLIMIT_{limit}, ({value}, {value}))")
    assert exit_code == 1
    assert said.startswith("User code has ")
    assert f"RLIMIT_{limit}" in said


def test_a_harmless_limit_may_be_lowered_for_good() -> None:
    assert run("resource.setrlimit(resource.RLIMIT_CORE, (0, 0))") == (0, "[]")


def test_a_leak_up_to_the_hard_limit_ends_the_process() -> None:
    code = """
        try:
            while True: kept = [*globals().get("kept", ()), os.dup(0)]
        except OSError: pass"""
    exit_code, said = run(code, "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))")
    assert exit_code == 1
    assert "User code has left too few file descriptors" in said


def test_used_up_descriptors_are_made_up_for() -> None:
    code = "kept = [os.dup(0) for _ in range(50)]"
    assert run(code, before="resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))") == (0, "[]")


def test_closing_all_descriptors_ends_the_process() -> None:
    exit_code, said = run("os.closerange(3, 500)")
    assert exit_code == 1
    assert "User code has closed file descriptors that it had not opened" in said


@pytest.mark.parametrize(
    ("close", "use", "error"),
    [
        ("sys.stdout.close()", "print(1)", "ValueError: I/O operation on closed file."),
        ("os.close(1)", "print(1, flush=True)", "OSError: [Errno 9] Bad file descriptor"),
    ],
)
def test_a_failure_for_closed_output_says_so(close: str, use: str, error: str) -> None:
    assert run(f"{close}; {use}") == (3, f"RuntimeError: The step has closed its stdout: {error}")
    assert run(close)[0] == 0
    assert run("raise ValueError('mine')") == (3, "ValueError: mine")


@pytest.mark.parametrize(
    "code",
    [
        "os.close(1); os.close(2)",
        "os.close(2); kept = open(os.devnull)",
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)",
    ],
)
def test_closed_and_redirected_streams_are_restored(code: str) -> None:
    assert run(code) == (0, "[]")


def test_closing_the_copies_of_the_streams_ends_the_process() -> None:
    exit_code, said = run("os.closerange(3, 5)")
    assert exit_code == 1
    assert "User code has closed file descriptors that it had not opened" in said
