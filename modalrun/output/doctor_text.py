"""The report of `modalrun doctor`, for people and as one versioned JSON object."""

from __future__ import annotations

import json

from rich.text import Text

from modalrun.doctor import Report
from modalrun.findings import LABELS
from modalrun.output.console import make_console
from modalrun.output.text import harmless, without_credentials

VERSION = 1
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


def as_json(report: Report) -> str:
    """The report for programs; docs/troubleshooting.md describes it."""
    document = {
        "format": "modalrun-doctor",
        "version": VERSION,
        "target": report.target,
        "exit_code": report.exit_code,
        "seconds": round(report.seconds, 3),
        "checks": [
            {**finding.as_json(), "message": without_credentials(finding.message)}
            for finding in report.findings
        ],
    }
    return json.dumps(document, indent=2)


def print_report(report: Report) -> None:
    """Print the report to stdout, a line for each check and one for what to do next."""
    shown = make_console(stderr=False)
    width = max(len(LABELS[finding.check]) for finding in report.findings)
    room = " " * (len("problem") + width + 4)
    for finding in report.findings:
        first, *rest = [
            without_credentials(harmless(line, colours=False))
            for line in finding.message.splitlines()
        ] or [""]
        state = (f"{finding.state:<9}", STYLES[finding.state])
        shown.print(Text.assemble(state, f"{LABELS[finding.check]:<{width}}  {first}"))
        for line in rest:
            shown.print(Text(f"{room}{line}"))
        if finding.hint:
            shown.print(Text(f"{room}-> {harmless(finding.hint, colours=False)}"))
    counts = {state: sum(f.state == state for f in report.findings) for state in STYLES}
    what = ", ".join(
        f"{number} {state}{'s' if number > 1 and state in {'problem', 'warning'} else ''}"
        for state, number in counts.items()
        if number
    )
    shown.print()
    shown.print(Text(f"{what}, in {report.seconds:.1f} s (target {report.target})"))
