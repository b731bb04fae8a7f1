"""Compare modalrun with ZenML's own Modal orchestrator on the same local Modal server.

Usage: python benchmarks/peer.py [--graphs chain-4,fan-8,chain-16] [--rounds 3] [--cold] [--boot 0]

Runs graphs of trivial steps (see `place.py`) in each of these ways:

    ZenML's        its Modal orchestrator (see `upstream.py`): a sandbox for each step, and one
                   that orchestrates
    per_step       modalrun, a sandbox for each step
    keep_warm      the same with `keep_warm: 30`: steps run in sandboxes that stay for the next one
    pipeline       modalrun, all steps in one sandbox

The ways take turns: each round runs all of them, every other round in reverse. Prints, per graph
and way, the median, minimum and maximum over the rounds:

    right      how many runs ended with exit code 0 and all steps completed in ZenML's records
    seconds    from a cold process that submits the run to its end, of the runs that ended right
    ahead      ZenML's seconds divided by these, within a round

`--cold` starts sandboxes without ZenML in memory, as Modal's cloud does; otherwise those of
modalrun have it. `--boot 2` lets a sandbox take 2 s to start.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence

from place import Figures, Place, place

WAYS = {
    "ZenML's": ("upstream", 0),
    "per_step": ("per_step", 0),
    "keep_warm": ("per_step", 30),
    "pipeline": ("pipeline", 0),
}
PEER = "ZenML's"


def measure(here: Place, graph: str, rounds: int, boot: float) -> dict[str, list[Figures]]:
    """Run a graph in each way and round; report each run that ends wrong at once."""
    found: dict[str, list[Figures]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in list(WAYS)[:: -1 if number % 2 else 1]:
            mode, keep_warm = WAYS[way]
            figures = here.run(graph, mode, boot, keep_warm)
            found[way].append(figures)
            if figures.problem:
                print(figures.problem, file=sys.stderr)
    return found


def spread(values: Sequence[float], unit: str) -> str:
    """Format the median and the extremes; "-" without values."""
    if not values:
        return "-"
    return f"{statistics.median(values):.1f}{unit} ({min(values):.1f}-{max(values):.1f})"


def row(graph: str, way: str, found: dict[str, list[Figures]]) -> str:
    """Format a line of the table."""
    right = [run for run in found[way] if not run.problem]
    pairs = zip(found[PEER], found[way], strict=True)
    ahead = [peer.total / own.total for peer, own in pairs if not (peer.problem or own.problem)]
    seconds = spread([run.total for run in right], " s")
    times = "" if way == PEER else spread(ahead, "x")
    return f"{graph:<10}{way:<11}{len(right):>3} of {len(found[way]):<3}{seconds:>20}{times:>20}"


def main() -> None:
    """Print the lines of a graph as soon as they are measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", default="chain-4,fan-8,chain-16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--boot", type=float, default=0.0)
    wanted = parser.parse_args()
    print(f"load of this machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'graph':<10}{'way':<12}{'right':<9}{'seconds':>20}{'ahead':>20}")
    with place(cold=wanted.cold) as here:
        for graph in wanted.graphs.split(","):
            found = measure(here, graph, wanted.rounds, wanted.boot)
            for way in WAYS:
                print(row(graph, way, found), flush=True)


if __name__ == "__main__":
    main()
