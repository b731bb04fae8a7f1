"""How long `modalrun --help` takes, beside an empty Python and what it must not import.

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
    """Print the median and the extremes of each command, in seconds."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{'seconds, median (min-max) of ' + str(repetitions):42}")
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(repetitions):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            times.append(time.perf_counter() - begin)
        print(f"{name:42} {statistics.median(times):.3f} ({min(times):.3f}-{max(times):.3f})")


if __name__ == "__main__":
    main()
