"""Compute what the report draws: bars of a timeline, a graph in layers, charts of usage. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import StepRecord
from modalrun.run.timeline import PHASES, Span, Timeline, levels
from modalrun.run.usage import StepUsage
from modalrun.util.timeformat import duration_of

CSS: dict[str, str] = {**{phase: phase.partition(" ")[0] for phase in PHASES}, "failed": "failed"}
"""The classes of the phases in the page, and of the run of an attempt that has failed."""

_NODE, _HEIGHT, _GAP_X, _GAP_Y = 208, 44, 48, 14
_NAME = 22
"""Characters of a name in a node."""

_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MOST_TICKS = 8


def phases(line: Timeline) -> list[str]:
    """Return the phases that a timeline has, for its legend."""
    every = [span for spans_ in (line.run, *(s.spans for s in line.steps)) for span in spans_]
    found = {span.kind for span in every}
    return [phase for phase in CSS if phase in found]


def spans(line: Timeline, some: Sequence[Span]) -> tuple[list[dict[str, Any]], str]:
    """Return the bars of a row, of a thousand in all, and the row in words."""
    whole = max(line.end - line.begin, 1e-9)
    bars, words = [], []
    for span in some:
        left = max(0.0, (span.begin - line.begin) / whole * 1000)
        width = max(2.0, (span.end - span.begin) / whole * 1000)
        attempt = f" (try {span.attempt})" if span.attempt > 1 else ""
        label = f"{span.kind}{attempt} {duration_of(span.end - span.begin)}"
        label += ", goes on" if span.open else ""
        words.append(label)
        left = min(left, 998.0)
        bars.append({"css": CSS[span.kind], "x": f"{left:.1f}", "width": f"{width:.1f}"})
        bars[-1]["label"] = label
    return bars, ", ".join(words)


def ticks(line: Timeline) -> list[dict[str, Any]]:
    """Return the marks of the axis: where each is in percent, and its time since the begin."""
    whole = max(line.end - line.begin, 1e-9)
    longest = max(_TICKS[-1], whole / _MOST_TICKS)
    step = next((s for s in _TICKS if whole / s <= _MOST_TICKS), longest)
    marks = [n * step for n in range(int(whole / step) + 1)]
    return [
        {
            "left": f"{100 * at / whole:.2f}",
            "label": duration_of(at, whole=True),
            "shift": 0 if not at else -100 if at / whole > 0.96 else -50,
        }
        for at in marks
    ]


def graph(
    steps: Sequence[StepRecord], anchors: Mapping[str, str], tones: Mapping[str, str]
) -> dict[str, Any]:
    """Lay out a graph: a column for each level, each step beside those that it waits for."""
    level = levels(steps)
    columns: list[list[StepRecord]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for step in steps:
        columns[level[step.name]].append(step)
    tallest = max(map(len, columns), default=0)
    place: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        ordered = sorted(
            column, key=lambda step: _mean([place[u][1] for u in step.upstream if u in place])
        )
        top = (tallest - len(column)) * (_HEIGHT + _GAP_Y) / 2 + 2
        for row, step in enumerate(ordered):
            place[step.name] = (2 + number * (_NODE + _GAP_X), top + row * (_HEIGHT + _GAP_Y))
    edges, nodes = [], []
    for step in steps:
        x, y = place[step.name]
        for name in step.upstream:
            if name in place:
                left, from_ = place[name][0] + _NODE, place[name][1] + _HEIGHT / 2
                half, to = (left + x) / 2, y + _HEIGHT / 2
                edges.append(
                    f"M{left:g},{from_:g} C{half:g},{from_:g} {half:g},{to:g} {x:g},{to:g}"
                )
        name = step.name if len(step.name) <= _NAME else f"{step.name[: _NAME - 1]}…"
        nodes.append(
            {
                "x": x,
                "y": y,
                "name": name,
                "more": step.status,
                "label": f"{step.name}, {step.status}",
                "anchor": anchors[step.name],
                "tone": tones.get(step.status, "quiet"),
            }
        )
    return {
        "nodes": nodes,
        "edges": edges,
        "node_width": _NODE,
        "width": len(columns) * (_NODE + _GAP_X) - _GAP_X + 4,
        "height": tallest * (_HEIGHT + _GAP_Y) - _GAP_Y + 4,
        "label": f"{len(steps)} steps in {len(columns)} layers",
    }


def charts(usage: StepUsage, asked: StepMetadata | RunMetadata | None) -> list[dict[str, Any]]:
    """Return the charts of a step: cores, memory and GPU over time, against what was asked for."""
    times = [point.at for point in usage.points]
    cpu, memory = (asked.cpu, asked.memory) if asked else (None, None)
    of_cpu = f" of {cpu:g}" if cpu else ""
    of_memory = f" of {memory:,}" if memory else ""
    found = [
        _chart("CPU", "cpu", times, [p.cores for p in usage.points], cpu)
        | {"figures": f"peak {usage.peak_cores:.3g}{of_cpu} cores"},
        _chart("Memory", "memory", times, [p.memory for p in usage.points], memory)
        | {"figures": f"peak {usage.peak_memory:,}{of_memory} MiB"},
    ]
    if usage.gpu is not None:
        busy = [float(p.gpu or 0) for p in usage.points]
        figures = {"figures": f"busy {usage.gpu} %"}
        found.append(_chart("GPU", "gpu", times, busy, 100) | figures)
    if usage.peak_gpu_memory is not None:
        held = [float(p.gpu_memory or 0) for p in usage.points]
        of_gpu = f" of {usage.gpu_memory:,}" if usage.gpu_memory else ""
        figures = {"figures": f"peak {usage.peak_gpu_memory:,}{of_gpu} MiB"}
        found.append(_chart("GPU memory", "gpu", times, held, usage.gpu_memory) | figures)
    return found


def _chart(
    name: str, css: str, times: Sequence[float], values: Sequence[float], asked: float | None
) -> dict[str, Any]:
    top = max(*values, asked or 0, 1e-9) * 1.1
    last = max(times[-1], 1e-9)
    line = [(0.0, values[0]), *zip(times, values, strict=True)]
    points = [f"{1000 * at / last:.0f},{100 - 100 * value / top:.0f}" for at, value in line]
    return {
        "name": name,
        "css": css,
        "points": " ".join(["0,100", *points, "1000,100"]),
        "asked": f"{100 - 100 * asked / top:.1f}" if asked else None,
    }


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
