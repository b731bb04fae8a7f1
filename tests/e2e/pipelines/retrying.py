"""Steps that fail and wait long for their retry."""

from pathlib import Path

from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig

RETRY = StepRetryConfig(max_retries=3, delay=600, backoff=1)


@step(retry=RETRY)
def fails() -> None:
    """Fail, and wait."""
    raise ValueError("bad luck")


@pipeline(enable_cache=False)
def static() -> None:
    """One such step, in a static run."""
    fails()


@pipeline(dynamic=True, enable_cache=False)
def dynamic() -> None:
    """One such step, in a dynamic run."""
    fails()


@pipeline(dynamic=True, enable_cache=False)
def submitted() -> None:
    """One such step in a thread."""
    fails.submit().load()


@pipeline(dynamic=True, enable_cache=False)
def isolated(retries: int = 3) -> None:
    """One such step, in a sandbox of its own if the mode allows it."""
    retry = RETRY.model_copy(update={"max_retries": retries})
    fails.with_options(runtime="isolated", retry=retry)()


@step(retry=StepRetryConfig(max_retries=1, delay=0, backoff=1), runtime="isolated")
def late(started: str, gate: str) -> None:
    """Fail at a gate."""
    Path(started).read_bytes()
    Path(gate).read_bytes()
    raise ValueError("bad luck")


@pipeline(dynamic=True, enable_cache=False)
def raising(started: str = "", gate: str = "") -> None:
    """Raise while such a step runs beside the function."""
    late.submit(started, gate)
    with Path(started).open("wb"):
        print("the function raises", flush=True)
    raise RuntimeError("as asked")
