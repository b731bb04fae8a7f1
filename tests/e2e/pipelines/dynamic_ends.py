"""Dynamic pipelines whose function or whose inline steps end in all kinds of ways."""

import os
import signal
import threading
import time
from pathlib import Path

from ending_steps import WAYS, end, fine
from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig


@pipeline(dynamic=True, enable_cache=False)
def steps(ways: list[str] | None = None, retries: int = 0) -> None:
    """End a step in each of the ways, and go on."""
    retry = StepRetryConfig(max_retries=retries, delay=0, backoff=1) if retries else None
    fine("first", id="first")
    for way in ways or WAYS:
        try:
            end.with_options(retry=retry)(way, id=way)
        except BaseException as error:  # noqa: PERF203
            print(f"{way} raised {type(error).__name__}: {error}")
    fine("last", id="last")


@pipeline(dynamic=True, enable_cache=False)
def function(way: str = "raises") -> None:
    """End the function itself."""
    fine("first", id="first")
    WAYS[way]()
    fine("never", id="never")


@step(retry=StepRetryConfig(max_retries=1, delay=0, backoff=1))
def once(diary: str) -> None:
    """End the process the first time."""
    time.sleep(1)
    if not Path(diary).exists():
        Path(diary).touch()
        os._exit(3)


@step
def beside() -> None:
    """Run beside it."""
    time.sleep(2)


@pipeline(dynamic=True, enable_cache=False)
def together(diary: str = "") -> None:
    """Two steps side by side, of which one ends the process."""
    for one in [once.submit(diary, id="once"), beside.submit(id="beside")]:
        one.load()


@pipeline(dynamic=True, enable_cache=False)
def apart(diary: str = "") -> None:
    """A step in a sandbox of its own, which ends its process the first time."""
    once.with_options(runtime="isolated").submit(diary, id="once").load()


@step
def kills(mark: str) -> None:
    """End the process, once the other step has run."""
    while not Path(mark).exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


@step
def waits(mark: str) -> None:
    """Run until the process ends."""
    Path(mark).touch()
    threading.Event().wait()


@pipeline(dynamic=True, enable_cache=False)
def killed(mark: str = "") -> None:
    """Two steps side by side, of which one ends the process whenever it runs."""
    for one in [kills.submit(mark, id="kills"), waits.submit(mark, id="waits")]:
        one.load()


@step(environment={"MINE": "secret"})
def with_variable() -> None:
    """Have a variable of its own for a while."""
    print("MINE is", os.environ.get("MINE"))
    time.sleep(1)
    os.environ["MINE"] += " changed"


@step
def without_variable() -> None:
    """Look for the variable of the other step."""
    for _ in range(15):
        assert "MINE" not in os.environ
        time.sleep(0.1)


@pipeline(dynamic=True, enable_cache=False)
def variables() -> None:
    """Two steps side by side, one with a variable of its own."""
    futures = [without_variable.submit(), with_variable.submit()]
    futures.append(without_variable.submit())
    for one in futures:
        one.load()
