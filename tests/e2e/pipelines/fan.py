"""Many steps that run side by side."""

from pathlib import Path

from zenml import pipeline, step


@step
def begin(count: int) -> int:
    """Come first."""
    return count


@step
def one(number: int, count: int, diary: str) -> int:
    """Be one of many; write down that it ran."""
    with Path(diary).open("a") as file:
        file.write(f"{number}\n")
    return number * count


@step
def end(diary: str) -> None:
    """Come last."""
    with Path(diary).open("a") as file:
        file.write("end\n")


@pipeline(enable_cache=False)
def fan(count: int, diary: str) -> None:
    """One step, then many, then one."""
    begun = begin(count)
    names = [f"one_{number}" for number in range(count)]
    for number, name in enumerate(names):
        one(number, begun, diary, id=name)
    end(diary, after=names)
