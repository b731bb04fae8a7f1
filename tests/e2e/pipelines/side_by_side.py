"""Steps side by side that say what they see of one another."""

import os
import sys
import time
from pathlib import Path

from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig

NAMES = ("OWN_LEFT", "OWN_RIGHT", "TOKEN_LEFT", "TOKEN_RIGHT", "LEFT_BEHIND")


@step
def meet(name: str, other: str, folder: str) -> None:
    """Wait for the other step, and write down which variables there are."""
    here, there = Path(folder, name), Path(folder, other)
    os.environ["LEFT_BEHIND"] = name
    here.touch()
    while not there.exists():
        time.sleep(0.01)
    seen = [f"{key}={os.environ[key]}" for key in NAMES if key in os.environ]
    print(f"{name} sees {' '.join(seen)}")
    # Until the other one has looked too.
    Path(folder, f"{name} is done").touch()
    while not Path(folder, f"{other} is done").exists():
        time.sleep(0.01)
    os.chdir("/")


@step
def afterwards() -> None:
    """Say what is left."""
    seen = [f"{key}={os.environ[key]}" for key in NAMES if key in os.environ]
    print(f"afterwards sees {' '.join(seen) or 'nothing'} in the folder of {Path.cwd().name}")


@pipeline(enable_cache=False)
def side_by_side(folder: str) -> None:
    """Two steps, and one after them."""
    meet("left", "right", folder, id="left")
    meet("right", "left", folder, id="right")
    afterwards(id="afterwards", after=["left", "right"])


@step
def fail_once_others_run(folder: str) -> None:
    """Fail when the other step waits."""
    while not Path(folder, "waits").exists():
        time.sleep(0.01)
    raise ValueError("bad luck")


@step
def wait(folder: str) -> None:
    """Wait for ever; say so when it is ended."""
    try:
        Path(folder, "waits").touch()
        time.sleep(3600)
    finally:
        print("unwinding")


@pipeline(enable_cache=False)
def one_fails(folder: str) -> None:
    """One fails beside another one."""
    fail_once_others_run(folder, id="broken")
    wait(folder, id="waiting")


TRIES: dict[int, int] = {}


@step(retry=StepRetryConfig(max_retries=2, delay=0))
def talk(number: int) -> None:
    """Print, and fail twice."""
    tries = TRIES[number] = TRIES.get(number, 0) + 1
    for line in range(20):
        sys.stdout.write(f"step {number} try {tries} line {line}\n")
    if tries < 3:
        raise RuntimeError("not yet")


@pipeline(dynamic=True, enable_cache=False)
def talking(steps: int) -> None:
    """Inline steps that print at the same time."""
    started = [talk.submit(number) for number in range(steps)]
    print("the function waits")
    for one in started:
        one.load()
