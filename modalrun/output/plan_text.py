"""A plan for people: a row a sandbox, the graph, what is worth saying, and money."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import typer

from modalrun.output.sanitize import harmless
from modalrun.output.wrapping import NO_BREAK, terminal_width, wrapped
from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.model import RUN_SANDBOX, Plan
from modalrun.plan.pricing import Cost, SandboxCost, dollars
from modalrun.plan.resources import MIN_CORES, MIN_MEMORY_MIB
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.spec.precedence import Value
from modalrun.submit.prepare import PricedPlan

_HEADER = ("sandbox", "gpu", "cpu", "memory", "region", "timeout", "image", "$/hour", "ceiling")


def print_plan(found: PricedPlan, *, explain: bool) -> None:
    """Print a plan to stdout.

    Args:
        found: The plan and its price.
        explain: Whether to show where each value came from.
    """
    width = terminal_width(sys.stdout)
    for line in lines(found, explain=explain, width=width):
        typer.echo(line)


def lines(found: PricedPlan, *, explain: bool, width: int | None = None) -> list[str]:
    """The text of a plan, for a terminal of a width or, without one, as wide as it needs to be."""
    text = _lines(found, explain=explain, width=width)
    return [part for one in text for part in wrapped(harmless(one, colours=False), width)]


def _lines(found: PricedPlan, *, explain: bool, width: int | None) -> list[str]:
    plan, cost = found.plan, found.cost
    result = [f"Plan of pipeline '{plan.pipeline}'", *_run_lines(plan, found.stack.name), ""]
    name = "run" if plan.settings.mode == "pipeline" else "driver"
    rows = [_row(plan, name, plan.run_sandbox, cost.run)]
    rows += [
        _row(plan, step.name, step.sandbox, cost.steps[step.name])
        for step in plan.steps
        if step.sandbox is not None
    ]
    result += [*_sandboxes(rows, width), "", *_graph(plan), ""]
    if explain:
        result += [*_origins(plan, width), ""]
    result += _money(cost, plan)
    if plan.notes:
        result += ["", "Notes", *(f"  - {note}" for note in plan.notes)]
    return result


_PREWARMED = {
    "off": None,
    "cpu": "sandboxes without a GPU start before their turn, and the waiting is billed",
    "all": "sandboxes start before their turn, and the waiting is billed",
}


def _run_lines(plan: Plan, stack: str) -> list[str]:
    settings = plan.settings
    what = {
        "pipeline": "all steps in one sandbox",
        "per_step": "one sandbox for each step, and a small one for the driver",
    }
    facts = {
        "mode": f"{settings.mode} ({what[settings.mode]})",
        "target": plan.target,
        "stack": stack,
        "app": settings.app_name,
        "environment": settings.modal_environment,
        "workspace": settings.workspace,
        "at once": f"{settings.max_parallelism} steps" if settings.max_parallelism else None,
        "waiting": None if settings.synchronous else "no: submit returns when the run is accepted",
        "prewarm": _PREWARMED[settings.prewarm] if settings.mode == "per_step" else None,
        "secrets": ", ".join(sorted({n for s in plan.sandboxes for n in s.secrets})),
        "volumes": ", ".join(
            sorted(
                {f"{name} at {path}" for s in plan.sandboxes for name, path in s.volumes.items()}
            )
        ),
    }
    return [f"  {name:<12} {value}" for name, value in facts.items() if value]


def _row(plan: Plan, name: str, sandbox: SandboxSpec, cost: SandboxCost) -> tuple[str, ...]:
    asked = sandbox.resources
    return (
        name,
        " or ".join(asked.gpus) or "-",
        f"{asked.cpu or MIN_CORES:g}" + (f" (max {asked.cpu_limit:g})" if asked.cpu_limit else ""),
        f"{asked.memory or MIN_MEMORY_MIB} MiB"
        + (f" (max {asked.memory_limit})" if asked.memory_limit else ""),
        ", ".join((*sandbox.regions, *([sandbox.cloud] if sandbox.cloud else []))) or "any",
        f"{sandbox.timeout} s",
        _image(plan.images[sandbox.image]),
        "?" if cost.per_hour is None else dollars(cost.per_hour),
        "?" if cost.ceiling is None else dollars(cost.ceiling),
    )


def _sandboxes(rows: list[tuple[str, ...]], width: int | None) -> list[str]:
    """A row for each sandbox, if need be with the images below, or a paragraph for each."""
    table = _table(_HEADER, rows)
    if _fits(table, width):
        return table
    image = _HEADER.index("image")
    users: dict[str, list[str]] = {}
    for row in rows:
        users.setdefault(row[image], []).append(row[0])
    images = [
        f"  image  {name}" if len(users) == 1 else f"  image  {name}: {', '.join(users[name])}"
        for name in users
    ]
    table = _table(
        (*_HEADER[:image], *_HEADER[image + 1 :]),
        [(*row[:image], *row[image + 1 :]) for row in rows],
    )
    if _fits(table, width):
        return [*table, "", *images]
    result = []
    for row in rows:
        named = [f"{name} {value}" for name, value in zip(_HEADER, row, strict=True)][1:image]
        price, ceiling = row[-2:]
        parts = [*named, f"{price} an hour", f"at most {ceiling}"]
        text = ", ".join(part.replace(" ", NO_BREAK) for part in parts)
        result += [f"  {row[0]}", f"    {text}"]
    return [*result, "", *images]


def _fits(table: list[str], width: int | None) -> bool:
    return width is None or max(map(len, table)) <= width


def _image(recipe: ImageRecipe) -> str:
    packages = len(recipe.apt_packages) + sum(len(group.lines) for group in recipe.packages)
    return f"{recipe.base} + {packages} packages" if packages else str(recipe.base)


def _graph(plan: Plan) -> list[str]:
    layers = plan.layers
    if not layers:
        return ["Order: the pipeline has no steps"]
    one_by_one = plan.settings.mode == "pipeline" and plan.settings.max_parallelism in {None, 1}
    how = (
        "one step at a time; 'max_parallelism' lets the steps of a line run side by side"
        if one_by_one
        else "the steps of a line can run side by side"
    )
    width = len(str(len(layers)))
    rows = [f"  {number:>{width}}  {', '.join(row)}" for number, row in enumerate(layers, start=1)]
    return [f"Order ({how})" if any(len(row) > 1 for row in layers) else "Order", *rows]


def _origins(plan: Plan, width: int | None) -> list[str]:
    rows = [("run", name, _shown(value), value.source) for name, value in plan.origins.items()]
    name = "run" if plan.settings.mode == "pipeline" else "driver"
    rows += _origin_rows(name, plan.sandbox_origins[RUN_SANDBOX])
    for step in plan.steps:
        if step.sandbox is not None:
            rows += _origin_rows(step.name, plan.sandbox_origins[step.name])
    table = _table(("sandbox", "setting", "value", "from"), rows)
    if not _fits(table, width):
        table = []
        setting, value = (max(len(row[i]) for row in rows) for i in (1, 2))
        # A long list of regions or volumes takes the room of its own row alone.
        value = min(value, 20)
        room = (width or 0) - setting - 6
        for name in dict.fromkeys(row[0] for row in rows):
            table.append(f"  {name}")
            table += [
                f"    {r[1]:<{setting}}  {r[2]:<{value}}  {_together(r[3], room)}"
                for r in rows
                if r[0] == name
            ]
    return ["Where each value comes from", *table]


def _together(text: str, room: int) -> str:
    """A text that goes to the next line as a whole, where that has room for it."""
    return text.replace(" ", NO_BREAK) if len(text) <= room else text


def _origin_rows(sandbox: str, origins: Mapping[str, Value]) -> list[tuple[str, str, str, str]]:
    return [(sandbox, name, _shown(value), value.source) for name, value in origins.items()]


def _shown(value: Value) -> str:
    if value.value is None:
        return "-"
    if isinstance(value.value, list):
        return ", ".join(map(str, value.value))
    if isinstance(value.value, Mapping):
        return ", ".join(f"{name} at {path}" for name, path in value.value.items())
    return str(value.value)


def _money(cost: Cost, plan: Plan) -> list[str]:
    where = " on Modal; the local Modal server costs nothing" if plan.target == "local" else ""
    if cost.ceiling is None:
        amount = f"unknown: no price for {', '.join(cost.unpriced)}"
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


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    every = [header, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*every, strict=True)]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
