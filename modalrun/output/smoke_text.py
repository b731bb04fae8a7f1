"""Show a smoke test: what it can cost before, and its report as text or as one JSON object."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

from modalrun import __version__
from modalrun.doctor.findings import Report
from modalrun.doctor.smoke import Smoke
from modalrun.doctor.smoke_checks import LINES
from modalrun.output.doctor_text import checks_as_json, print_findings
from modalrun.plan.pricing import LIST_PRICES, dollars

VERSION = 1


def estimate(smoke: Smoke) -> str:
    """Say what a smoke test is about to do, and what it can cost at most."""
    sandboxes = sum(one.sandboxes for one in smoke.trials.values())
    begin = f"Smoke test: {sandboxes} small sandboxes, stack '{smoke.priced.stack.name}'"
    if smoke.plan.target == "local":
        return f"{begin}, on the local Modal server; it costs nothing."
    if smoke.ceiling is None:
        return f"{begin}. The price of the GPU is not known."
    return (
        f"{begin}. It takes about two minutes and can cost up to {dollars(smoke.ceiling)} (timeout"
        f" x list price of {LIST_PRICES.as_of}); the first build of the image takes longer."
    )


def as_json(report: Report) -> str:
    """Render the report for programs and for an issue; docs/first-cloud-run.md describes it.

    It has names, and neither secrets nor the path of the home folder.
    """
    document = {
        "format": "modalrun-smoke",
        "version": VERSION,
        "versions": {
            "modalrun": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("modal", "zenml")},
        },
        "target": report.target,
        "exit_code": report.exit_code,
        "seconds": round(report.seconds, 3),
        "checks": checks_as_json(report.findings),
    }
    text, home = json.dumps(document, indent=2), json.dumps(str(Path.home()))[1:-1]
    # Some containers have "/" as home.
    return text.replace(home, "~") if len(home) > 1 else text


def print_report(report: Report) -> None:
    """Print a line for each finding to stdout, with what modalrun does or what to do."""
    labels = {name: line.label for name, line in LINES.items()}
    print_findings(report.findings, labels, report.seconds, report.target)
