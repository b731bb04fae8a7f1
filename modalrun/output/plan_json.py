"""Render a plan as one versioned JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from modalrun.errors import without_credentials
from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.model import RUN_SANDBOX, Plan
from modalrun.plan.pricing import SandboxCost
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.spec.precedence import Value
from modalrun.submit.prepare import PricedPlan
from modalrun.submit.source.tree import SourceTree, shown

VERSION = 1


def as_json(found: PricedPlan, tree: SourceTree, *, files: bool = False) -> str:
    """Render a plan for programs, without the values of secrets and environment variables.

    With `files`, it lists those of the source tree.
    """
    plan, cost = found.plan, found.cost
    document = {
        "format": "modalrun-plan",
        "version": VERSION,
        "pipeline": plan.pipeline,
        "target": plan.target,
        **asdict(plan.settings),
        "origins": _origins(plan.origins),
        "run_sandbox": _sandbox(plan, RUN_SANDBOX, plan.run_sandbox, cost.run),
        "steps": [
            {
                "name": step.name,
                "upstream": list(step.upstream),
                "retries": step.retries,
                "sandbox": _sandbox(plan, step.name, step.sandbox, cost.steps[step.name])
                if step.sandbox
                else None,
            }
            for step in plan.steps
        ],
        "layers": [list(layer) for layer in plan.layers],
        "cost": {
            "currency": "USD",
            "ceiling": _amount(cost.ceiling),
            "unpriced": list(cost.unpriced),
            "unknown": cost.unknown,
            "holds_above_request": cost.has_limits,
            "prices_as_of": cost.table.as_of,
            "prices_source": cost.table.source,
        },
        "source": _source(tree, files=files),
        "stack": {"id": found.stack.id, "name": found.stack.name},
        "notes": list(found.notes),
        "problems": list(found.problems),
    }
    return json.dumps(document, indent=2)


def _source(tree: SourceTree, *, files: bool) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "root": shown(tree.root),
        "files": len(tree.files),
        "bytes": tree.size,
        "untracked": tree.untracked,
        "credential_files_left_out": tree.credentials,
        "notes": tree.notes,
    }
    if files:
        summary["included"] = [
            {
                "path": shown(file.path),
                "bytes": file.size,
                "tracked": file.tracked if tree.in_git else None,
                "credential": file.credential,
            }
            for file in tree.files
        ]
        left_out = {**tree.left_out, **{k: f"leads to {shown(v)}" for k, v in tree.leaving.items()}}
        summary["left_out"] = [{"path": shown(k), "rule": v} for k, v in sorted(left_out.items())]
    return summary


def _sandbox(plan: Plan, name: str, sandbox: SandboxSpec, cost: SandboxCost) -> dict[str, Any]:
    asked = sandbox.resources
    return {
        "gpu": asked.gpu,
        "other_gpus": list(asked.gpus[1:]),
        "cpu": asked.cpu,
        "cpu_limit": asked.cpu_limit,
        "memory_mib": asked.memory,
        "memory_limit_mib": asked.memory_limit,
        "regions": list(sandbox.regions),
        "cloud": sandbox.cloud,
        "timeout": sandbox.timeout,
        "secrets": list(sandbox.secrets),
        "volumes": dict(sandbox.volumes),
        "image": _image(plan.images[sandbox.image]),
        "origins": _origins(plan.sandbox_origins[name]),
        "price_per_hour": _amount(cost.per_hour),
        "longest_seconds": cost.seconds,
        "ceiling": _amount(cost.ceiling),
    }


def _image(recipe: ImageRecipe) -> dict[str, Any]:
    return {
        "base": str(recipe.base),
        "apt_packages": list(recipe.apt_packages),
        "python_packages": [
            without_credentials(line) for group in recipe.packages for line in group.lines
        ],
        "environment": list(recipe.variables),
    }


def _origins(origins: Any) -> dict[str, dict[str, Any]]:
    return {name: _value(value) for name, value in origins.items()}


def _value(value: Value) -> dict[str, Any]:
    return {"value": value.value, "origin": value.source}


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.6f}"
