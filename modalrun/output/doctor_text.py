"""Show the report of `modalrun doctor`: as text, or as one versioned JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from modalrun.doctor.findings import Report
from modalrun.errors import without_credentials
from modalrun.output.terminal.console import fitted, make_console, print_lines, width_of
from modalrun.util.check import LABELS, Finding

VERSION = 1
STYLES = {
    "ok": "green",
    "warning": "yellow",
    "differs": "yellow",
    "problem": "bold red",
    "broken": "bold red",
    "skipped": "dim",
}


def as_json(report: Report) -> str:
    """Render the report for programs; docs/troubleshooting.md describes it."""
    document = {
        "format": "modalrun-doctor",
        "version": VERSION,
        "target": report.target,
        "exit_code": report.exit_code,
        "seconds": round(report.seconds, 3),
        "checks": checks_as_json(report.findings),
    }
    return json.dumps(document, indent=2)


def checks_as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as plain values, without credentials."""
    return [
        {**finding.as_json(), "message": without_credentials(finding.message)}
        for finding in findings
    ]


def print_report(report: Report) -> None:
    """Print a line for each check to stdout, and what to do about each problem or next."""
    print_findings(report.findings, LABELS, report.seconds, report.target)
    if report.target == "modal" and not report.exit_code:
        following = "Next: 'modalrun smoke' tries in small sandboxes what only Modal can show."
        shown = make_console(stderr=False)
        print_lines(shown, fitted(following, width_of(shown)))


def print_findings(
    findings: Sequence[Finding], labels: Mapping[str, str], seconds: float, target: str
) -> None:
    """Print a line for each finding to stdout, and how many there are of each state."""
    shown = make_console(stderr=False)
    width = max(len(labels[finding.check]) for finding in findings)
    indent = len("problem") + width + 4
    lines: list[Text] = []
    for finding in findings:
        first, *more = [without_credentials(line) for line in finding.message.splitlines()] or [""]
        if finding.hint:
            more.append(f"-> {finding.hint}")
        text = f"{finding.state:<9}{labels[finding.check]:<{width}}  {first}".rstrip()
        text = "\n".join([text, *(" " * indent + line for line in more)])
        head, *rest = fitted(text, width_of(shown), indent=indent)
        head.stylize(STYLES[finding.state], 0, len(finding.state))
        lines += [head, *rest]
    counts = {state: sum(f.state == state for f in findings) for state in STYLES}
    parts = ", ".join(
        f"{number} {state}{'s' if number > 1 and state in {'problem', 'warning'} else ''}"
        for state, number in counts.items()
        if number
    )
    end = Text(f"{parts}, in {seconds:.1f} s (target {target})")
    print_lines(shown, [*lines, Text(), end])
