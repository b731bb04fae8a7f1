"""A step that reads a file which an ignore file leaves out."""

from pathlib import Path

from zenml import pipeline, step


@step
def reads() -> int:
    """Read the file."""
    return len(Path("data/labels.csv").read_text())


@pipeline(enable_cache=False)
def missing() -> None:
    """Only that step."""
    reads()
