"""One branch that breaks and a longer one that doesn't."""

from zenml import pipeline, step


@step
def start() -> int:
    """Feed both branches."""
    return 1


@step
def broken(number: int) -> int:
    """Fail."""
    raise ValueError(f"broken on purpose, {number}")


@step
def after_broken(number: int) -> int:
    """Never run."""
    return number


@step
def first(number: int) -> int:
    """The first step of the other branch."""
    return number + 1


@step
def second(number: int) -> int:
    """Its second."""
    return number + 1


@step
def third(number: int) -> None:
    """Its third."""
    print(f"the other branch ends with {number}")


@pipeline(enable_cache=False)
def branches() -> None:
    """One branch that breaks and a longer one that doesn't."""
    number = start()
    after_broken(broken(number))
    third(second(first(number)))
