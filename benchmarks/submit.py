"""Measure a pipeline of four trivial steps against ZenML's `local` orchestrator.

`modalrun submit` uses the local Modal server. Both start from a cold process, without cache.

Usage: python benchmarks/submit.py [repetitions]

Uses a temporary folder with a ZenML configuration and a local Modal server, both prepared before
the clock starts; one more measurement includes the start of the server.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "configs" / "diamond.yaml"
LOCAL_ORCHESTRATOR = (
    "from examples.diamond import diamond; diamond.with_options(enable_cache=False)()"
)


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a command takes; print its output only if it fails."""
    begin = time.perf_counter()
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}\n{result.stderr}")
    return seconds


def main() -> None:
    """Print one line per way to run the pipeline."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "local_orchestrator.py"
        script.write_text(LOCAL_ORCHESTRATOR + "\n", encoding="utf-8")
        environment = {
            **os.environ,
            "HOME": folder,
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "MODALRUN_LOCAL_STATE": f"{folder}/modal",
            "PYTHONPATH": str(ROOT),
        }
        modalrun = [sys.executable, "-m", "modalrun"]
        timed(
            [sys.executable, "-c", "from zenml.client import Client; Client().zen_store"],
            environment,
        )
        try:
            cold = timed([*modalrun, "submit", str(SPEC)], environment)
            warm = [
                timed([*modalrun, "submit", str(SPEC)], environment) for _ in range(repetitions)
            ]
            local = [timed([sys.executable, str(script)], environment) for _ in range(repetitions)]
        finally:
            timed([*modalrun, "local", "stop"], environment)
    print(f"four trivial steps, seconds of wall time, median (min-max) of {repetitions}")
    print(f"modalrun submit, local Modal server   {show(warm)}")
    print(f"  the same, server not running yet    {cold:.1f}")
    print(f"ZenML's local orchestrator            {show(local)}")


def show(times: list[float]) -> str:
    """Format the median and the extremes."""
    return f"{statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f})"


if __name__ == "__main__":
    main()
