"""Measure `modalrun plan` on a deployment file of many steps against an empty Python.

Usage: python benchmarks/plan.py [steps] [repetitions]

The file is `configs/diamond.yaml`, compiled once with ZenML; its steps are repeated in a chain
until there are enough. The measured commands use no ZenML server.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from submit import timed

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "configs" / "diamond.yaml"
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Print the median and the extremes of each command, in seconds."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HOME": folder,
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "PYTHONPATH": str(ROOT),
        }
        path = Path(folder) / "deployment.json"
        modalrun = [sys.executable, "-m", "modalrun"]
        timed([*modalrun, "compile", str(SPEC), "-o", str(path)], environment)
        enlarge(path, steps)
        plan = [*modalrun, "plan", str(path), "--target", "local"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "modalrun --version": [*modalrun, "--version"],
            "modalrun plan": plan,
            "modalrun plan --mode per_step": [*plan, "--mode", "per_step"],
            "modalrun plan --mode per_step --explain": [*plan, "--mode", "per_step", "--explain"],
            "modalrun plan --mode per_step --output json": [
                *plan,
                *("--mode", "per_step", "--output", "json"),
            ],
        }
        print(f"{steps} steps, {path.stat().st_size / 1e6:.1f} MB; seconds of wall time,", end=" ")
        print(f"median (min-max) of {repetitions}")
        for name, command in commands.items():
            times = [timed(command, environment) for _ in range(repetitions)]
            print(f"{name:44} {statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})")


def enlarge(path: Path, count: int) -> None:
    """Repeat the steps of a deployment file until there are `count`."""
    from modalrun.plan import deployment_file

    deployment = deployment_file.read(path)
    originals = list(deployment.snapshot["step_configurations"].items())
    steps: dict[str, Any] = {}
    while len(steps) < count:
        name, step = originals[len(steps) % len(originals)]
        repeated = copy.deepcopy(step)
        repeated["spec"]["upstream_steps"] = [next(reversed(steps))] if steps else []
        steps[f"{name}_{len(steps)}"] = repeated
    snapshot = {**deployment.snapshot, "step_configurations": steps}
    deployment_file.write(path, replace(deployment, snapshot=snapshot))


if __name__ == "__main__":
    main()
