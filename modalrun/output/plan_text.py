"""Show a plan: a row for each sandbox, the graph, the cost and notes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

from modalrun.output.terminal.sanitize import harmless
from modalrun.output.terminal.wrapping import NO_BREAK, wrapped
from modalrun.output.terminal.writer import out
from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.model import RUN_SANDBOX, Plan
from modalrun.plan.pricing import Cost, SandboxCost, dollars
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.spec import explanation
from modalrun.spec.precedence import Origin, Value
from modalrun.submit.prepare import PricedPlan
from modalrun.submit.source.tree import SourceTree, shown, size
from modalrun.util.credentials import described
from modalrun.util.timeparse import written

Explain = Literal["set", "all"]
"""What has a value that is no default, or everything."""

_TO_INCLUDE = "'source_include: [PATH]' in the run spec takes ignored and credential files along."

_HEADER = ("sandbox", "gpu", "cpu", "memory", "region", "timeout", "image", "$/hour", "ceiling")


def print_plan(
    found: PricedPlan, tree: SourceTree, *, explain: Explain | None, files: bool
) -> None:
    """Print a plan to stdout.

    Args:
        explain: Of which values to show where they come from.
        files: Whether to list the files of the source tree.
    """
    # Rich is slow to import; a plan of a deployment file needs neither it nor an SDK.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    out("\n".join(lines(found, explain=explain, width=width)))
    source = tree.described("" if files else "'--files' lists them")
    text = ["", source, *(f"  note: {note}" for note in tree.notes)]
    out("\n".join(_fitted([*text, *(_files(tree) if files else ())], width)))


def lines(found: PricedPlan, *, explain: Explain | None, width: int | None = None) -> list[str]:
    """Lay out a plan for a terminal of a width; without one, as wide as it needs to be."""
    return _fitted(_lines(found, explain=explain, width=width), width)


def _fitted(text: list[str], width: int | None) -> list[str]:
    return [part for one in text for part in wrapped(harmless(one, colours=False), width)]


def _files(tree: SourceTree) -> list[str]:
    """List the files that go, and what is left out, each with the rule."""
    rows = []
    for file in tree.files:
        remarks = [] if file.tracked or not tree.in_git else ["untracked"]
        remarks += [described(file.credential)] if file.credential else []
        link = f" -> {shown(file.real)}" if file.real != file.path else ""
        rows.append((f"{shown(file.path)}{link}", size(file.size), ", ".join(remarks)))
    left_out = [(shown(path), rule) for path, rule in sorted(tree.left_out.items())]
    left_out += [(shown(at), f"leads to {shown(target)}") for at, target in tree.leaving.items()]
    taken = tree.credentials or tree.ignored_files or tree.ignored_folders
    return [
        *(["", "Files that go", *_table(*rows)] if rows else []),
        *(["", "Left out", *_table(*left_out)] if left_out else []),
        *(["", _TO_INCLUDE] if taken else []),
    ]


def _lines(found: PricedPlan, *, explain: Explain | None, width: int | None) -> list[str]:
    plan, cost = found.plan, found.cost
    rows = [_row(plan, RUN_SANDBOX, plan.run_sandbox, cost.run)]
    rows += [
        _row(plan, step.name, step.sandbox, cost.steps[step.name])
        for step in plan.steps
        if step.sandbox is not None
    ]
    return [
        f"Plan of pipeline '{plan.pipeline}'",
        *_run_lines(plan, found.stack.name, found.usage),
        "",
        *_sandboxes(rows, width),
        "",
        *_graph(plan),
        "",
        *([*_origins(found, explain, width), ""] if explain else []),
        *_money(cost, plan),
        *(["", "Notes", *(f"  - {note}" for note in found.notes)] if found.notes else []),
    ]


_RUN_SANDBOX = {"pipeline": "run", "per_step": "driver"}
_MODES = {
    "pipeline": "all steps in one sandbox",
    "per_step": "one sandbox for each step, and a small one for the driver",
}


def _run_lines(plan: Plan, stack: str, usage: str) -> list[str]:
    volumes = {f"{name} at {path}" for s in plan.sandboxes for name, path in s.volumes.items()}
    settings = plan.settings
    values = {
        "mode": f"{settings.mode} ({_MODES[settings.mode]})",
        "target": plan.target,
        "stack": stack,
        "app": settings.app_name,
        "environment": settings.modal_environment,
        "workspace": settings.workspace,
        "at once": f"{settings.max_parallelism} steps" if settings.max_parallelism else None,
        "waiting": None if settings.synchronous else "no: submit returns when the run is accepted",
        "kept warm": f"sandboxes wait up to {written(settings.keep_warm)} for another step, and the"
        " waiting is billed"
        if settings.keep_warm and settings.mode == "per_step"
        else None,
        "secrets": ", ".join(sorted({n for s in plan.sandboxes for n in s.secrets})),
        "volumes": ", ".join(sorted(volumes)),
        "usage": usage,
    }
    return [f"  {name:<12} {value}" for name, value in values.items() if value]


def _row(plan: Plan, key: str, sandbox: SandboxSpec, cost: SandboxCost) -> tuple[str, ...]:
    asked, origins = sandbox.resources, plan.sandbox_origins[key]
    return (
        key or _RUN_SANDBOX[plan.settings.mode],
        " or ".join(asked.gpus) or "-",
        _requested(f"{asked.cpu:g}", origins["cpu_count"], asked.cpu_limit),
        _requested(f"{asked.memory} MiB", origins["memory"], asked.memory_limit),
        ", ".join((*sandbox.regions, *([sandbox.cloud] if sandbox.cloud else []))) or "any",
        written(sandbox.timeout),
        _image(plan.images[sandbox.image]),
        "?" if cost.per_hour is None else dollars(cost.per_hour),
        "?" if cost.ceiling is None else dollars(cost.ceiling),
    )


def _requested(amount: str, value: Value, limit: float | None) -> str:
    remarks = ["default"] if value.origin is Origin.DEFAULT else []
    remarks += [f"max {limit:g}"] if limit else []
    return f"{amount} ({', '.join(remarks)})" if remarks else amount


def _sandboxes(rows: list[tuple[str, ...]], width: int | None) -> list[str]:
    """Lay out a row for each sandbox; where it is too wide, images below, or paragraphs."""
    wide = _table(_HEADER, *rows)
    if _fits(wide, width):
        return wide
    image = _HEADER.index("image")
    users: dict[str, list[str]] = {}
    for row in rows:
        users.setdefault(row[image], []).append(row[0])
    images = [
        f"  image  {name}" + (f": {', '.join(names)}" if len(users) > 1 else "")
        for name, names in users.items()
    ]
    narrow = _table(*((*row[:image], *row[image + 1 :]) for row in (_HEADER, *rows)))
    if _fits(narrow, width):
        return [*narrow, "", *images]
    result = []
    for row in rows:
        named = [f"{name} {value}" for name, value in zip(_HEADER, row, strict=True)][1:image]
        price, ceiling = row[-2:]
        parts = [*named, f"{price} an hour", f"at most {ceiling}"]
        text = ", ".join(part.replace(" ", NO_BREAK) for part in parts)
        result += [f"  {row[0]}", f"    {text}"]
    return [*result, "", *images]


def _image(recipe: ImageRecipe) -> str:
    packages = len(recipe.apt_packages) + sum(len(group.lines) for group in recipe.packages)
    return f"{recipe.base} + {packages} packages" if packages else str(recipe.base)


def _graph(plan: Plan) -> list[str]:
    layers = plan.layers
    if not layers:
        return ["Order: decided by the pipeline's function"]
    one_by_one = plan.settings.mode == "pipeline" and plan.settings.max_parallelism in {None, 1}
    how = (
        "one step at a time; 'max_parallelism' lets the steps of a line run side by side"
        if one_by_one
        else "the steps of a line can run side by side"
    )
    width = len(str(len(layers)))
    rows = [f"  {number:>{width}}  {', '.join(row)}" for number, row in enumerate(layers, start=1)]
    return [f"Order ({how})" if any(len(row) > 1 for row in layers) else "Order", *rows]


def _origins(found: PricedPlan, explain: Explain, width: int | None) -> list[str]:
    plan, spec = found.plan, found.spec
    sandboxes = {
        "run": plan.origins,
        **{name or "driver": origins for name, origins in plan.sandbox_origins.items()},
    }
    if plan.settings.mode == "pipeline":
        sandboxes = {"run": {**plan.origins, **plan.sandbox_origins[RUN_SANDBOX]}}
    rows = list(explanation.parameters(spec))
    for sandbox, origins in sandboxes.items():
        for setting, value in origins.items():
            if explain == "all" or not _is_default(value):
                taken = explanation.variables(spec, sandbox, setting, value.source)
                source = f"{value.source}: {taken}" if taken else value.source
                rows.append((sandbox, setting, _shown(setting, value), source))
    head = "Where each value comes from" + ("" if explain == "all" else "; '--all' adds defaults")
    if not rows:
        return ["Every setting has its default; '--explain --all' shows them"]
    lines = _table(("sandbox", "setting", "value", "from"), *rows)
    if not _fits(lines, width):
        room = max(len(setting) for _, setting, _, _ in rows)
        lines = []
        for name in dict.fromkeys(row[0] for row in rows):
            lines.append(f"  {name}")
            # A long value, as a list of regions, takes the room of its own row alone.
            lines += [f"    {r[1]:<{room}}  {r[2]:<20}  {r[3]}" for r in rows if r[0] == name]
    return [head, *lines]


def _is_default(value: Value) -> bool:
    # No secrets and no volumes are the default, even where somebody has written that.
    return value.origin is Origin.DEFAULT or value.value in ([], {})


def _shown(setting: str, value: Value) -> str:
    if value.value is None:
        return "-"
    if isinstance(value.value, list | tuple):
        return ", ".join(map(str, value.value)) or "[]"
    if isinstance(value.value, Mapping):
        return ", ".join(f"{name} at {path}" for name, path in value.value.items()) or "{}"
    if isinstance(value.value, bool):
        return str(value.value).lower()
    if setting in {"timeout", "gpu_wait", "wait_for_capacity"}:
        return written(value.value)
    return f"{value.value:g}" if isinstance(value.value, float) else str(value.value)


def _money(cost: Cost, plan: Plan) -> list[str]:
    where = " on Modal; the local Modal server costs nothing" if plan.target == "local" else ""
    if cost.ceiling is None:
        amount = f"unknown: {cost.unknown}"
    else:
        amount = f"at most {dollars(cost.ceiling)}{where}"
    result = [
        f"Cost: {amount}",
        f"  timeout x price; prices of {cost.table.as_of}, {cost.table.source}",
    ]
    if not cost.has_limits:
        result.append(
            "  CPU and memory that a run uses above its request cost more; 'cpu_limit' and"
            " 'memory_limit' bound them"
        )
    return result


def _table(*rows: Sequence[str]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _fits(lines: list[str], width: int | None) -> bool:
    return width is None or max(map(len, lines)) <= width
