"""Steps that leave traces, for sandboxes that are kept warm."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zenml import pipeline, step

STRAY = """
import os, sys, time
os.setsid()
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


@step
def leave(number: int, diary: str) -> int:
    """Find nothing of an earlier step, and leave what a next one must not find."""
    places = {
        "working": Path.cwd(),
        "temporary": Path(tempfile.gettempdir()),
    }
    for name, place in places.items():
        print(f"{name} {place} has {sorted(path.name for path in place.glob('left-*'))}")
        (place / f"left-{number}").touch()
    print("environment", os.environ.get("LEFT"), "source", Path(__file__).parent == Path.cwd())
    os.environ["LEFT"] = "set"
    stray = Path(diary, f"stray-{number}")
    subprocess.Popen([sys.executable, "-c", STRAY, str(stray)])
    while not stray.exists() or not stray.read_text():
        time.sleep(0.01)
    for earlier in range(number):
        pid = Path(diary, f"stray-{earlier}").read_text()
        print(f"stray {earlier} runs:", Path("/proc", pid).exists())
    print("no line feed", end="", flush=True)
    return number


@pipeline(enable_cache=False)
def traces(count: int, diary: str) -> None:
    """One after the other."""
    before: list[str] = []
    for number in range(count):
        leave(number, diary, id=f"leave_{number}", after=before)
        before = [f"leave_{number}"]


@step
def say(text: str) -> str:
    """Print, and be done."""
    tokens = sorted(name for name in os.environ if name.startswith("TOKEN_"))
    print(f"it says {text} with {tokens}", flush=True)
    return text


@step
def wait(gate: str) -> str:
    """Wait until somebody opens the gate."""
    print("waiting", flush=True)
    with Path(gate).open() as file:
        file.read()
    return gate


@pipeline(enable_cache=False)
def gated(gate: str) -> None:
    """A step of the same kind before and after the one that waits."""
    say("first", id="first")
    wait(gate, after=["first"])
    say("last", id="last", after=["wait"])


@step
def hang(way: str) -> None:
    """Take too long, or too much."""
    if way == "memory":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(16)) * 2**20)
    if way == "stopped":
        os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(600)


@pipeline(enable_cache=False)
def saying() -> None:
    """One after the other."""
    say("a", id="a")
    say("b", id="b", after=["a"])
    say("c", id="c", after=["b"])


@pipeline(enable_cache=False)
def exceeding(way: str = "time") -> None:
    """A step that exceeds its time, and one after it."""
    hang(way, id="hang")
    say("afterwards", id="after")


@step(runtime="isolated")
def square(number: int) -> int:
    """Run in a sandbox of its own."""
    print(f"squaring {number}", flush=True)
    return number * number


@pipeline(dynamic=True, enable_cache=False)
def decided(count: int) -> None:
    """Decide while it runs."""
    number = 2
    for _ in range(count):
        number = square(number).load() % 1000


@step
def spoil() -> None:
    """Leave in the source tree what can't be copied."""
    # The step's own working folder is a copy in a folder beside it.
    os.mkfifo(Path.cwd().parents[1] / Path.cwd().name / "pipe")


@pipeline(enable_cache=False)
def unprepared() -> None:
    """A step whose files can't be created."""
    spoil()
    say("after", id="after", after=["spoil"])
