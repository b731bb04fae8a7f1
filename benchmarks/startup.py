"""Measure the start of `modalrun --help` against an empty Python and the SDKs.

Usage: python benchmarks/startup.py [repetitions]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import typer'": ["-c", "import typer"],
    "modalrun --help": ["-m", "modalrun", "--help"],
    "modalrun --version": ["-m", "modalrun", "--version"],
    "modalrun submit (spec with a wrong key)": ["-m", "modalrun", "submit", "/dev/null"],
    "python -c 'import modal'": ["-c", "import modal"],
    "python -c 'import zenml'": ["-c", "import zenml"],
}


def main() -> None:
    """Print each command's median and extremes in seconds, and its multiple of `python -c pass`."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"seconds, median (min-max) of {repetitions}, multiple of `python -c pass`")
    empty = 0.0
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(repetitions):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            times.append(time.perf_counter() - begin)
        median = statistics.median(times)
        empty = empty or median
        extremes = f"({min(times):.3f}-{max(times):.3f})"
        print(f"{name:42} {median:.3f} {extremes} {median / empty:6.1f}x")


if __name__ == "__main__":
    main()
