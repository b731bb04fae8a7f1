"""Pipelines of many steps: a step that takes the outputs of all others, and a long chain."""

from zenml import pipeline, step


@step
def one(number: int) -> int:
    """Be one of many."""
    return number


@step
def follow(number: int) -> int:
    """Count on."""
    return number + 1


@step
def join(numbers: list[int]) -> None:
    """Take everything."""
    print(f"joined {len(numbers)}, sum {sum(numbers)}")


@pipeline(enable_cache=False)
def fan_in(count: int) -> None:
    """Many steps side by side, then one."""
    join([one(number, id=f"one_{number}") for number in range(count)])


@pipeline(enable_cache=False, dynamic=True)
def dynamic_fan_in(count: int = 1) -> None:
    """Many steps side by side, then one, as the function runs."""
    join([one.submit(number) for number in range(count)])


@pipeline(enable_cache=False)
def chain(count: int) -> None:
    """One step after the other, then one that takes all of their outputs."""
    outputs = [one(0)]
    for _ in range(count - 1):
        outputs.append(follow(outputs[-1]))
    join(outputs)
