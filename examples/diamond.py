"""The smallest pipeline with two branches: load, then left and right, then join."""

from typing import Annotated

from zenml import pipeline, step


@step
def load(count: int) -> Annotated[list[int], "numbers"]:
    """Make the numbers that both branches read."""
    numbers = list(range(1, count + 1))
    print(f"loaded {numbers}")
    return numbers


@step
def left(numbers: list[int]) -> Annotated[int, "total"]:
    """Add the numbers up."""
    total = sum(numbers)
    print(f"the sum is {total}")
    return total


@step
def right(numbers: list[int], power: int = 2) -> Annotated[int, "total_of_powers"]:
    """Add up a power of the numbers."""
    total = sum(number**power for number in numbers)
    print(f"the sum of the numbers to the power of {power} is {total}")
    return total


@step
def join(total: int, total_of_powers: int) -> Annotated[dict[str, int], "totals"]:
    """Bring the two branches together."""
    totals = {"total": total, "total_of_powers": total_of_powers}
    print(f"joined {totals}")
    return totals


@pipeline
def diamond(count: int = 4) -> None:
    """Compute two totals side by side."""
    numbers = load(count)
    join(left(numbers), right(numbers))
