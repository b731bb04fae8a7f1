"""A diamond, and a dynamic pipeline, that fail as long as a file is missing. Nothing is cached."""

from pathlib import Path
from typing import Annotated

from zenml import pipeline, step


@step(enable_cache=True)
def load(count: int) -> Annotated[list[int], "numbers"]:
    """Make numbers."""
    print("load runs")
    return list(range(count))


@step
def left(numbers: list[int], file: str) -> Annotated[int, "total"]:
    """Add them up, once there is a file."""
    print("left runs")
    if not Path(file).exists():
        raise FileNotFoundError(file)
    return sum(numbers)


@step
def right(numbers: list[int]) -> Annotated[int, "squares"]:
    """Add their squares up."""
    print("right runs")
    return sum(number * number for number in numbers)


@step
def join(total: int, squares: int) -> Annotated[int, "both"]:
    """Bring both together."""
    print(f"join runs with {total} and {squares}")
    return total + squares


@pipeline(enable_cache=False)
def diamond(count: int = 4, file: str = "") -> None:
    """Two branches that meet again."""
    numbers = load(count)
    join(left(numbers, file), right(numbers))


@step(runtime="isolated")
def square(number: int) -> Annotated[int, "square"]:
    """Square a number."""
    print(f"square runs with {number}")
    return number * number


@pipeline(dynamic=True, enable_cache=False)
def growing(count: int = 2, file: str = "") -> None:
    """Square as many numbers as there are, then do the same in a static way."""
    numbers = load(count)
    squares = [square(number) for number in numbers.load()]
    total = left(numbers, file)
    join(total, squares[-1])


@step
def named() -> Annotated[int, "of_{who}"]:
    """Make a result whose name has a placeholder."""
    print("named runs")
    return 1


@step
def timed() -> Annotated[int, "at_{time}"]:
    """Make a result whose name has the time of the run."""
    print("timed runs")
    return 2


@pipeline(enable_cache=False, substitutions={"who": "me"})
def placeholders(file: str = "") -> None:
    """Results and a run whose names have placeholders."""
    join(named(), timed(), after=[left([1], file)])
