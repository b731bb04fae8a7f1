"""Two steps, the second of which fails."""

from zenml import pipeline, step


@step
def prepare() -> int:
    """Prepare."""
    return 1


@step
def train(number: int) -> int:
    """Fail."""
    return number // 0


@pipeline(enable_cache=False)
def charted() -> None:
    """One after the other."""
    train(prepare())
