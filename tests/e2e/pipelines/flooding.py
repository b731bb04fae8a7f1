"""A step that prints more than anybody reads, and does not end."""

import sys
import time

from zenml import pipeline, step


@step(enable_cache=False)
def flood() -> None:
    block = "".join(f"line {number} {'x' * 80}\n" for number in range(1000))
    for _ in range(300):
        sys.stdout.write(block)
    time.sleep(1000)


@pipeline
def flooding() -> None:
    flood()
