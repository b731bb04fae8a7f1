"""A step that leaves its lines unfinished."""

import sys

from zenml import pipeline, step


@step
def leaves() -> None:
    """Print without line ends, and fail."""
    print("half a line", end="")
    print("half an error", end="", file=sys.stderr)
    raise ValueError("no")


@pipeline(enable_cache=False)
def unfinished() -> None:
    """Only that step."""
    leaves()


if __name__ == "__main__":
    unfinished()
