"""A step that prints without end."""

import sys

from zenml import pipeline, step


@step(enable_cache=False)
def flood() -> None:
    block = "".join(f"line {number} {'x' * 80}\n" for number in range(1000))
    while True:
        sys.stdout.write(block)


@pipeline
def flooding() -> None:
    flood()
