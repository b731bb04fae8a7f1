"""Measure what `modalrun local start --isolated-python` costs a run of one trivial step.

Usage: python benchmarks/isolated_python.py [repetitions]

The first start makes the image's virtual environment; what uv has in its cache is not downloaded.
Later ones use it, but import ZenML anew, since a sandbox's Python is no fork of the server's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from submit import ROOT, show, timed

SPEC = """
pipeline: one.one
target: local
enable_cache: false
settings:
  docker: {requirements: [numpy]}
"""
PIPELINE = """
from zenml import pipeline, step


@step
def pause() -> int:
    return 1


@pipeline
def one() -> None:
    pause()
"""


def main() -> None:
    """Print one line for each kind of start."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        project.mkdir()
        (project / "one.py").write_text(PIPELINE, encoding="utf-8")
        spec = project / "run.yaml"
        spec.write_text(SPEC, encoding="utf-8")
        environment = {
            **os.environ,
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
            "HOME": folder,
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "PYTHONPATH": str(ROOT),
        }
        modalrun = [sys.executable, "-m", "modalrun"]
        print(f"one trivial step, seconds of wall time, median (min-max) of {repetitions}")
        for label, option in (("this Python", []), ("isolated", ["--isolated-python"])):
            environment["MODALRUN_LOCAL_STATE"] = f"{folder}/{label.split()[0]}"
            timed([*modalrun, "local", "start", *option], environment)
            try:
                first = timed([*modalrun, "submit", str(spec)], environment)
                later = [
                    timed([*modalrun, "submit", str(spec)], environment) for _ in range(repetitions)
                ]
            finally:
                subprocess.run(
                    [*modalrun, "local", "stop"], env=environment, check=False, capture_output=True
                )
            print(f"{label:<12} first {first:5.1f}   later {show(later)}")


if __name__ == "__main__":
    main()
