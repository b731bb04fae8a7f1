"""Run pipelines as their run specs say, on ZenML's local orchestrator, and write what came of it.

Started by `test_example_pipelines.py` as a process of its own, because ZenML keeps its
configuration for the life of a process. Reads a JSON list of `{config, parameters, steps}` from
stdin and writes a JSON list of results to the file that is its only argument.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def run(config: str, parameters: dict[str, Any], steps: dict[str, Any]) -> dict[str, Any]:
    """Run one pipeline and load its artifacts."""
    from zenml.client import Client

    spec = yaml.safe_load((ROOT / "configs" / config).read_text())
    spec["parameters"].update(parameters)
    spec["steps"].update(steps)
    changed = Path("changed.yaml")
    changed.write_text(yaml.safe_dump(spec))

    module, _, name = spec["pipeline"].rpartition(".")
    pipeline = getattr(importlib.import_module(module), name)
    run = Client().get_pipeline_run(pipeline.with_options(config_path=str(changed))().id)
    artifacts: dict[str, Any] = {}
    for step_name, step in run.steps.items():
        for output_name, (output,) in step.outputs.items():
            value = output.load()
            key = f"{step_name}.{output_name}"
            if hasattr(value, "model_dump"):
                artifacts[key] = value.model_dump()
            elif isinstance(value, (str, int, list, dict)):
                artifacts[key] = value
            else:
                artifacts[key] = type(value).__name__
    return {
        "status": str(run.status),
        "upstream": {name: sorted(step.spec.upstream_steps) for name, step in run.steps.items()},
        "metadata": {name: dict(step.run_metadata) for name, step in run.steps.items()},
        "visualizations": {
            name: [
                str(visualization.type)
                for (output,) in step.outputs.values()
                for visualization in output.visualizations or []
            ]
            for name, step in run.steps.items()
        },
        "artifacts": artifacts,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    results = [run(**request) for request in json.load(sys.stdin)]
    Path(sys.argv[1]).write_text(json.dumps(results))
