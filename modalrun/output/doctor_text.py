"""The report of `modalrun doctor`, for people and as one versioned JSON object."""

from __future__ import annotations

import json

from rich.text import Text

from modalrun.doctor.examination import Report
from modalrun.output.console import make_console
from modalrun.output.sanitize import harmless, without_credentials
from modalrun.output.wrapping import terminal_width, wrapped
from modalrun.util.check import LABELS

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
    columns = terminal_width(shown.file)
    width = max(len(LABELS[finding.check]) for finding in report.findings)
    room = " " * (len("problem") + width + 4)
    for finding in report.findings:
        first, *rest = [
            without_credentials(harmless(line, colours=False))
            for line in finding.message.splitlines()
        ] or [""]
        state = f"{finding.state:<9}"
        text = f"{state}{LABELS[finding.check]:<{width}}  {first}"
        more = [f"{room}{line}" for line in rest]
        more += [f"{room}-> {harmless(finding.hint, colours=False)}"] if finding.hint else []
        fitting = wrapped(text, columns, indent=len(room))
        fitting += [part for line in more for part in wrapped(line, columns, indent=len(room))]
        for number, line in enumerate(fitting):
            part = Text(line.rstrip())
            if number == 0:
                part.stylize(STYLES[finding.state], 0, len(finding.state))
            shown.print(part)
    counts = {state: sum(f.state == state for f in report.findings) for state in STYLES}
    what = ", ".join(
        f"{number} {state}{'s' if number > 1 and state in {'problem', 'warning'} else ''}"
        for state, number in counts.items()
        if number
    )
    shown.print()
    shown.print(Text(f"{what}, in {report.seconds:.1f} s (target {report.target})"))
