"""Steps that redraw a line."""

import subprocess
import sys
from pathlib import Path

from zenml import pipeline, step


@step
def train(gate: str) -> None:
    """Show a progress bar, as tqdm does, and wait in its middle."""
    print("train begins")
    for percent in range(100):
        sys.stderr.write(f"\repoch 3/10 {percent:3} %")
        sys.stderr.flush()
        if percent == 31:
            Path(gate).read_text()
    sys.stderr.write("\n")
    print("train ends")


@step
def fetch(gate: str) -> None:
    """Show the progress bar of another process."""
    script = "for n in $(seq 1 500); do printf 'got %s MB\\r' $n; done; cat $0; echo; echo done"
    subprocess.run(["sh", "-c", script, gate], check=True)


@pipeline(enable_cache=False)
def redrawing(first: str, second: str) -> None:
    """Redraw lines side by side."""
    train(first)
    fetch(second)
