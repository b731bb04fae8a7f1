"""Show advice: as a table, as one versioned JSON object, or as a part of a run spec to paste."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import yaml
from rich.text import Text

from modalrun.observe.advice import Advice, StepAdvice
from modalrun.output.terminal.console import fitted, make_console, print_lines, width_of
from modalrun.output.terminal.table import cell, table
from modalrun.plan.pricing import LIST_PRICES, dollars

VERSION = 1
ALL_STEPS = "(all steps)"

_DYNAMIC = """\
# The pipeline's function creates its steps while it runs: a run spec can name only those that
# the pipeline lists in 'depends_on'. Give others their settings in the code: '@step(settings=...)'.
"""


def print_advice(advice: Advice) -> None:
    """Print a table to stdout, and what it does not say."""
    shown = make_console(stderr=False)
    width = width_of(shown)
    runs = f"the last {len(advice.runs)} runs" if len(advice.runs) > 1 else "one run"
    lines: list[Text] = []
    if advice.steps:
        title = f"{advice.pipeline}: cores and memory, by {runs} ({advice.mode})"
        rows = [_row(one) for one in advice.steps]
        lines += [*fitted(title, width), Text(), *table(rows, width, cut={"step": 12}), Text()]
    for text in _remarks(advice):
        lines += fitted(text, width)
    print_lines(shown, lines)


def as_json(advice: Advice) -> str:
    """Render advice for programs: memory in MiB, amounts in USD."""
    document = {
        "format": "modalrun-advice",
        "version": VERSION,
        "pipeline": advice.pipeline,
        "mode": advice.mode,
        "runs": [run.id for run in advice.runs],
        "currency": "USD",
        "prices_as_of": LIST_PRICES.as_of,
        "steps": [
            {
                **asdict(one),
                "cpu": {**asdict(one.cpu), "used_percent": one.cpu.used},
                "memory": {**asdict(one.memory), "used_percent": one.memory.used},
                "saved": None if one.saved is None else f"{one.saved:.6f}",
            }
            for one in advice.steps
        ],
        "unmeasured": list(advice.unmeasured),
        "missing": dict(advice.missing),
    }
    return json.dumps(document, indent=2)


def as_settings(advice: Advice) -> str:
    """Render what to change as a part of a run spec; empty if nothing is to be changed."""
    found = {one.step: _settings(one) for one in advice.steps if one.saved is not None}
    changed = {step: {"settings": settings} for step, settings in found.items() if settings}
    if None in changed:
        return yaml.safe_dump(changed[None], sort_keys=False)
    text = yaml.safe_dump({"steps": changed}, sort_keys=False) if changed else ""
    if not (text and advice.dynamic):
        return text
    return f"{_DYNAMIC}{''.join(f'# {line}' for line in text.splitlines(keepends=True))}"


def _settings(one: StepAdvice) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if one.cpu.changed and one.cpu.suggestion is not None:
        cores = float(one.cpu.suggestion)
        resources["cpu_count"] = int(cores) if cores.is_integer() else cores
    if one.memory.changed and one.memory.suggestion is not None:
        resources["memory"] = _mib(one.memory.suggestion).replace(" ", "")
    if not resources:
        return {}
    # A step with resources of its own and no GPU is a CPU step.
    gpu = {"orchestrator": {"gpu": one.gpu}} if one.gpu and one.step is not None else {}
    return {**gpu, "resources": resources}


def _row(one: StepAdvice) -> dict[str, Text]:
    cpu, memory = one.cpu, one.memory
    shared = one.saved is None
    suggested = "" if shared else _both(cpu.suggestion or 0, memory.suggestion or 0)
    return {
        "step": cell(one.step or ALL_STEPS),
        "asked": cell("" if shared else _both(cpu.asked, memory.asked)),
        "peak": cell(_both(cpu.peak, memory.peak) if one.runs else "?"),
        "mean": cell(_both(cpu.mean, memory.mean) if one.runs else "?"),
        "ask for": cell(suggested, "bold" if cpu.changed or memory.changed else ""),
        "a run": _effect(one),
    }


def _effect(one: StepAdvice) -> Text:
    if one.saved is None:
        return Text()
    raised = [
        f"{name} ran out" if one.ran_out and name == "memory" else f"{name} used {quantity.used} %"
        for name, quantity in (("cpu", one.cpu), ("memory", one.memory))
        if quantity.raised
    ]
    if raised:
        return cell(f"raise: {', '.join(raised)}", "yellow")
    if one.saved > 0:
        return cell(f"saves {dollars(one.saved)}", "green")
    return cell("not all measured" if one.kept else "fits")


def _remarks(advice: Advice) -> list[str]:
    remarks = []
    for one in advice.steps:
        if one.gpu is not None and (one.step is None or one.saved is not None):
            name = f"{one.step or 'The sandbox of all steps'}"
            if one.gpu_is_idle:
                hint = "move preprocessing to a CPU step"
                remarks.append(f"{name}: GPU ({one.gpu}) busy {one.gpu_busy} %: {hint}.")
            elif one.gpu_busy is None:
                why = "the local Modal server has no GPU; an image of yours needs 'nvidia-ml-py'"
                remarks.append(f"{name}: GPU use is not known ({why}).")
            else:
                remarks.append(f"{name}: GPU ({one.gpu}) busy {one.gpu_busy} %.")
    total = sum((one.saved or Decimal(0) for one in advice.steps), Decimal(0))
    if total:
        change = "less" if total >= 0 else "more"
        remarks.append(
            f"With the suggested cores and memory a run costs {dollars(abs(total))} {change} on"
            f" Modal (list prices of {LIST_PRICES.as_of}). '--write' prints the settings."
        )
    if advice.unmeasured:
        names = ", ".join(advice.unmeasured)
        remarks.append(f"Not measured, since they took less than a second or so: {names}.")
    for why in dict.fromkeys(advice.missing.values()):
        names = ", ".join(name for name, reason in advice.missing.items() if reason == why)
        whose = "the sandbox" if advice.mode == "pipeline" else "a step of these"
        remarks.append(
            f"Not measured to the end in each run ({why}): {names}. What {whose} asks for is not"
            " lowered."
        )
    return remarks


def _both(cores: float, mib: float) -> str:
    return f"{cores:.3g}, {_mib(mib)}"


def _mib(mib: float) -> str:
    """Format memory as a spec takes it, but for the blank."""
    whole = round(mib)
    return f"{whole // 1024} GiB" if whole and whole % 1024 == 0 else f"{whole} MiB"
