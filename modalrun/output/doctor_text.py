"""Show the report of `modalrun doctor`: as text, or as one versioned JSON object."""

from __future__ import annotations

import json

from rich.text import Text

from modalrun.doctor.examination import Report
from modalrun.errors import without_credentials
from modalrun.output.console import fitted, make_console, print_lines, width_of
from modalrun.util.check import LABELS

VERSION = 1
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


def as_json(report: Report) -> str:
    """Render the report for programs; docs/troubleshooting.md describes it."""
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
    """Print a line for each check to stdout, and what to do about each problem."""
    shown = make_console(stderr=False)
    width = max(len(LABELS[finding.check]) for finding in report.findings)
    indent = len("problem") + width + 4
    lines: list[Text] = []
    for finding in report.findings:
        first, *more = [without_credentials(line) for line in finding.message.splitlines()] or [""]
        more += [f"-> {finding.hint}"] if finding.hint else []
        text = f"{finding.state:<9}{LABELS[finding.check]:<{width}}  {first}".rstrip()
        text = "\n".join([text, *(" " * indent + line for line in more)])
        head, *rest = fitted(text, width_of(shown), indent=indent)
        head.stylize(STYLES[finding.state], 0, len(finding.state))
        lines += [head, *rest]
    counts = {state: sum(f.state == state for f in report.findings) for state in STYLES}
    parts = ", ".join(
        f"{number} {state}{'s' if number > 1 and state in {'problem', 'warning'} else ''}"
        for state, number in counts.items()
        if number
    )
    end = Text(f"{parts}, in {report.seconds:.1f} s (target {report.target})")
    print_lines(shown, [*lines, Text(), end])
