"""A dynamic pipeline, whose number of steps depends on what its first step returns."""

import os
import sys
from pathlib import Path

from zenml import pipeline, step, wait
from zenml.config import ResourceSettings


def where() -> str:
    """The step that this process is for; nothing in the run sandbox."""
    return os.environ.get("MODALRUN_STEP", "the run sandbox")


@step
def count() -> int:
    """Run where the pipeline's function runs."""
    print(f"counting in {where()}")
    return 2


@step(
    settings={
        "orchestrator": {"gpu": "T4", "timeout": 200},
        "resources": ResourceSettings(gpu_count=1, memory="2GiB"),
    }
)
def square(number: int, wrong: bool = False, gate: str | None = None) -> int:
    """Ask for resources, and so for a sandbox where there can be one."""
    print(f"squaring {number} in {where()}", flush=True)
    if gate and not number:
        with Path(gate).open() as file:
            file.read()
    if wrong and number:
        raise ValueError("as asked")
    return number * number


@step
def total(numbers: list[int]) -> int:
    """Add up."""
    print(f"total {sum(numbers)} in {where()}")
    return sum(numbers)


@pipeline(dynamic=True, enable_cache=False)
def inner(gate: str | None = None) -> int:
    """A pipeline within another one."""
    return total([square(0, False, gate).load()])


@pipeline(dynamic=True, enable_cache=False)
def outer(gate: str | None = None) -> int:
    """Call a pipeline, whose run is a child of this one's."""
    return total([inner(gate=gate).load()])


@pipeline(dynamic=True, enable_cache=False)
def growing(wrong: bool = False, gate: str | None = None, ask: bool = False) -> int:
    """Square as many numbers as the first step says."""
    squares = [square.submit(number, wrong, gate) for number in range(count().load())]
    print("the function waits", flush=True)
    numbers = [one.load() for one in squares]
    if ask:
        numbers.append(wait(schema=int, timeout=1, poll_interval=1, name="more"))
    return total(numbers)


@step
def hold(number: int, gate: str) -> int:
    """Run until a gate is open."""
    print("holding", flush=True)
    with Path(gate).open() as file:
        file.read()
    return number


@pipeline(dynamic=True, enable_cache=False)
def asking(gate: str) -> int:
    """Ask for a number before the only step."""
    return hold(wait(schema=int, timeout=1, poll_interval=1, name="number"), gate)


if __name__ == "__main__":
    growing(ask="ask" in sys.argv)
