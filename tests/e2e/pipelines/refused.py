"""What can't be submitted."""

from zenml import pipeline, step


@step
def train(rate: float) -> None:
    """Do nothing."""


@pipeline
def training(rate: float = 0.1) -> None:
    """Need nothing."""
    train(rate)


@pipeline
def needy(epochs: int) -> None:
    """Need a parameter."""
    train(epochs)


@pipeline(settings={"orchestrator": {"timeout": "soon"}})
def hasty() -> None:
    """Have a setting of a wrong type."""
    train(0.1)


@pipeline(settings={"orchestrator": {"gpuu": "T4"}})
def misspelt() -> None:
    """Have a setting that doesn't exist."""
    train(0.1)


def helper() -> None:
    """Be no pipeline."""
