"""Show results: on a terminal (Rich), as plain lines, as JSON, in a GitHub Actions job.

- `reporter`, `live`, `summary`, `github`: what `submit` and `resume` show of a run;
- `log_text`: lines of a log, for `submit` and `logs`;
- `status_text`, `status_json`, `run_list`, `plan_text`, `plan_json`, `doctor_text`, `local_text`:
  one for each command;
- `report`, `report_drawing`, `report.html.j2`: a run as one page for a browser;
- `terminal` (a room of its own), `format`, `reasons`: what these share.

It knows results and creates nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modalrun.output.reporter import Reporter


def in_github_job() -> bool:
    """Return whether this process is part of a GitHub Actions job."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def make_reporter() -> Reporter:
    """Create the reporter for the environment of this process."""
    # Rich is slow to import, and this package is imported for every command.
    if in_github_job():
        from modalrun.output.github import GitHubReporter

        return GitHubReporter()
    from modalrun.output.reporter import Reporter

    return Reporter()
