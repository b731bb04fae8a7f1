"""A dynamic pipeline, whose number of steps depends on what its first step returns."""

import os

from zenml import pipeline, step
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
def square(number: int, wrong: bool = False) -> int:
    """Ask for resources, and so for a sandbox where there can be one."""
    print(f"squaring {number} in {where()}")
    if wrong and number:
        raise ValueError("as asked")
    return number * number


@step
def total(numbers: list[int]) -> int:
    """Add up."""
    print(f"total {sum(numbers)} in {where()}")
    return sum(numbers)


@pipeline(dynamic=True, enable_cache=False)
def growing(wrong: bool = False) -> int:
    """Square as many numbers as the first step says."""
    squares = [square.submit(number, wrong) for number in range(count().load())]
    return total([one.load() for one in squares])


if __name__ == "__main__":
    growing()
