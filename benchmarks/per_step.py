"""Compare `per_step` and `pipeline` mode on graphs of trivial steps on the local Modal server.

Usage: python benchmarks/per_step.py [--graphs chain-4,fan-8,...] [--boot 0,2] [--modes ...]
                                     [--rounds 1] [--cold] [--keep-warm 30] [--zenml-server]

Prints, per graph (see `place.py`), mode and boot delay of a sandbox, the median over the rounds of:

    total       of `modalrun submit`, from a cold process to its end
    first line  from the start of `submit` to the first line that a step printed
    create gap  from the end of a step's last parent to its `SandboxCreate`, both on the server's
                clock: median, 95th percentile
    step        from `SandboxCreate` to the end of the sandbox, median

`--zenml-server` keeps ZenML's records on a ZenML server, as runs on Modal's cloud do, and not in
SQLite. `--cold` starts sandboxes without ZenML in memory. `--keep-warm 30` sets `keep_warm` in
`per_step` mode; then "create gap" and "step" have no meaning, because a sandbox runs several steps.
`peer.py` compares with ZenML's own Modal orchestrator.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

from place import Figures, place

GRAPHS = "chain-4,chain-16,fan-8,fan-50,random-200"


def row(graph: str, mode: str, boot: float, rounds: list[Figures]) -> str:
    """Print a line of the table."""
    total = statistics.median(figures.total for figures in rounds)
    first = statistics.median(figures.first_line for figures in rounds)
    gaps = sorted(gap * 1000 for figures in rounds for gap in figures.gaps)
    steps = [step for figures in rounds for step in figures.steps]
    high = gaps[int(len(gaps) * 0.95)] if gaps else 0.0
    gap = f"{statistics.median(gaps):5.0f} {high:5.0f} ms" if gaps else "-"
    step = f"{statistics.median(steps):5.1f} s" if steps else "-"
    line = f"{first:.1f} s" if first else "-"
    return f"{graph:<12}{mode:<10}{boot:>4g} s{total:>8.1f} s{line:>12}{gap:>16}{step:>9}"


def main() -> None:
    """Print one line per graph, mode and boot delay as soon as it is measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", default=GRAPHS)
    parser.add_argument("--boot", default="0,2")
    parser.add_argument("--modes", default="per_step,pipeline")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--keep-warm", type=int, default=0)
    parser.add_argument("--zenml-server", action="store_true")
    wanted = parser.parse_args()
    print(f"load of this machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        f"{'graph':<12}{'mode':<10}{'boot':>6}{'total':>10}{'first line':>12}"
        f"{'create gap':>16}{'step':>9}"
    )
    with place(cold=wanted.cold, zenml_server=wanted.zenml_server) as here:
        for graph in wanted.graphs.split(","):
            for mode in wanted.modes.split(","):
                for boot in map(float, wanted.boot.split(",")):
                    rounds = [
                        here.run(graph, mode, boot, wanted.keep_warm) for _ in range(wanted.rounds)
                    ]
                    if problem := next(filter(None, (each.problem for each in rounds)), None):
                        sys.exit(problem)
                    print(row(graph, mode, boot, rounds), flush=True)


if __name__ == "__main__":
    main()
