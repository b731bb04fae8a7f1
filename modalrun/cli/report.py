"""`modalrun report` and `modalrun open`: a run as one HTML page, or its pages elsewhere."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modalrun.cli.run_argument import END_OF_COMMAND, Interruption, Run, resolved
from modalrun.errors import NotFoundError, UsageError
from modalrun.output.terminal import writer
from modalrun.util.paths import checked_path

if TYPE_CHECKING:
    from modalrun.run.records import RunRecord

Page = Literal["zenml", "modal", "report"]


def report(
    run: Run = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write [default: report-RUN.html]."
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a run as one HTML page that needs no network.

    It shows timeline, graph, usage, cost, failures, artifacts and configuration; of a run that goes
    on, as they are now.
    """
    if str(output) == "-":
        raise UsageError("The report is a file: '--output' takes no '-'.")
    with Interruption(END_OF_COMMAND), resolved(run) as (found, spinner):
        path = checked_path(output or Path(f"report-{found.id[:8]}.html"), "--output").absolute()
        _write(found, path)
        spinner.end()
    writer.out(str(path))
    if open_ and not _opened(path.as_uri()):
        writer.err("There is no browser here: open the file in one.")


def open_(
    run: Run = None,
    page: Annotated[
        Page | None,
        typer.Argument(
            metavar="[zenml|modal|report]",
            help="ZenML's dashboard, Modal's, or the report; by default the first that there is.",
        ),
    ] = None,
) -> None:
    """Open a run's page in a browser, and print its address."""
    with Interruption(END_OF_COMMAND), resolved(run) as (found, spinner):
        from modalrun.output.status_json import app_url

        metadata = found.metadata
        urls: dict[Page, str | None] = {
            "zenml": found.url,
            "modal": (metadata and metadata.sandbox_url) or app_url(found),
        }
        known: list[Page] = [name for name in urls if urls[name]]
        chosen = page or [*known, "report"][0]
        url = urls.get(chosen)
        if chosen == "report":
            folder = Path(tempfile.mkdtemp(prefix="modalrun-report-"))
            _write(found, folder / f"report-{found.id[:8]}.html")
            url = next(folder.iterdir()).as_uri()
        spinner.end()
    if url is None:
        raise NotFoundError(
            f"The run {found.id} has no page in {_DASHBOARDS[chosen]}.",
            hint=f"'modalrun open {found.id} report' shows it without one.",
        )
    writer.out(url)
    _opened(url)


_DASHBOARDS: dict[Page, str] = {
    "zenml": "ZenML's dashboard: its records are in a local database",
    "modal": "Modal's dashboard: it ran on the local Modal server, or had no sandbox",
}


def _write(run: RunRecord, path: Path) -> None:
    from modalrun.observe.report import read_report
    from modalrun.output.report import render

    text = render(read_report(run.id, _plan(run)))
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"The report can't be written to {path}: {error.strerror}.") from error


def _plan(run: RunRecord) -> tuple[str, ...]:
    from modalrun.errors import ModalrunError
    from modalrun.output.plan_text import lines
    from modalrun.submit.prepare import plan_of_run

    if run.parent is not None:
        return (f"A child pipeline has the plan of its parent, the run {run.parent}.",)
    if run.place is None:
        return ("modalrun did not start this run.",)
    try:
        return tuple(lines(plan_of_run(run.id, run.place.target), explain="set"))
    except ModalrunError as error:
        return (f"The plan can't be resolved here: {error.problem}",)


def _opened(url: str) -> bool:
    """Open a page, unless only a browser of the terminal could."""
    shown = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, shown)):
        return False
    return webbrowser.open(url)
