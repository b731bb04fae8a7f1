"""Steps that print much."""

import sys
import time

from zenml import pipeline, step


@step
def chat(name: str, count: int) -> None:
    """Print numbered lines on both streams, over a second or so."""
    for number in range(count):
        stream = sys.stderr if number % 5 == 4 else sys.stdout
        print(f"{name} line {number} € {'x' * (number % 40)}", file=stream, flush=True)
        if number % 50 == 0:
            time.sleep(0.02)


@pipeline(enable_cache=False)
def chatty(steps: int, count: int) -> None:
    """Steps that don't depend on one another."""
    for number in range(steps):
        chat(f"step-{number}", count, id=f"chat_{number}")
