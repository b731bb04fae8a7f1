"""Two branches that meet again."""

import sys
from typing import Annotated

from zenml import pipeline, step


@step
def load(count: int) -> Annotated[list[int], "numbers"]:
    """Make numbers."""
    print(f"loaded {count} numbers")
    print("load says this on stderr", file=sys.stderr)
    return list(range(1, count + 1))


@step
def left(numbers: list[int]) -> Annotated[int, "total"]:
    """Add them up."""
    return sum(numbers)


@step
def right(numbers: list[int]) -> Annotated[int, "squares"]:
    """Add their squares up."""
    return sum(number * number for number in numbers)


@step
def join(total: int, squares: int) -> Annotated[dict[str, int], "both"]:
    """Bring both together."""
    print(f"joined {total} and {squares}")
    return {"total": total, "squares": squares}


@pipeline
def diamond(count: int = 4) -> None:
    """Two branches that meet again."""
    numbers = load(count)
    join(left(numbers), right(numbers))
