"""Define a run to attach to, and the observer that its output is shown to."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modalrun.modal_api.client import Connection
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.modal_api.sandboxes.termination import SandboxGroup
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.events import Redraw, StepEvent
from modalrun.run.failure import Failure
from modalrun.run.log_lines import LogLine
from modalrun.run.progress import RunProgress
from modalrun.run.run_plan import RunPlan
from modalrun.spec.spec_argument import source_root_of


@dataclass(frozen=True)
class RunHandle:
    """A run whose run sandbox Modal has accepted.

    Attributes:
        zenml_url: Its page on ZenML's dashboard, where there is one.
        steps: All steps of the pipeline, parents before children.
        sandboxes: All sandboxes of the run.
        recording: The thread that stores in ZenML where the sandbox is, so that others find it.
        resumed: Whether an earlier driver has run a part of it.
        ended: The steps that had ended by then; their output is not shown again.
        source_root: The folder of this machine whose files it got.
        left_behind: Returns what a step has missed that is on this machine; None for nothing.
    """

    run_id: str
    zenml_url: str | None
    plan: RunPlan
    steps: tuple[str, ...]
    sandbox: RunningSandbox
    sandboxes: SandboxGroup
    connection: Connection
    recording: threading.Thread
    resumed: bool = False
    ended: frozenset[str] = frozenset()
    source_root: Path | None = None
    left_behind: Callable[[Failure], str | None] = lambda _: None

    @property
    def links(self) -> list[tuple[str, str]]:
        """The run's id and pages, with labels."""
        links = [("run", self.run_id)]
        if self.zenml_url:
            links.append(("zenml", self.zenml_url))
        if self.sandbox.url:
            links += [
                ("app", f"https://modal.com/id/{self.sandbox.app_id}"),
                ("sandbox", self.sandbox.url),
            ]
        return links

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The commands for a run that continues, with labels."""
        return [
            ("status", f"modalrun status {self.run_id}"),
            ("logs", f"modalrun logs --follow {self.run_id}"),
            ("stop", f"modalrun stop {self.run_id}"),
        ]

    def with_folder(self, command: str) -> str:
        """Return a command that needs the run's files, with their folder if it is another one."""
        root = self.source_root
        with contextlib.suppress(OSError):
            # The current folder may have been deleted.
            if root is not None and source_root_of(Path.cwd()).resolve() != root.resolve():
                return f"{command} --source-root {shlex.quote(str(root))}"
        return command


class RunObserver(Protocol):
    """Show the submission of a run, its progress and its output."""

    def phase(self, text: str) -> None:
        """Show the current activity until something else is shown."""

    def waiting(self, wait: CapacityWait | None) -> None:
        """Show that Modal has no place yet; None ends that."""

    def say(self, text: str, style: str | None = None) -> None:
        """Show a message."""

    def begin(self, progress: RunProgress) -> None:
        """Prepare for the run's output; from now on `progress` has the progress of its steps."""

    def event(self, event: StepEvent | Redraw) -> None:
        """Show that an event has changed the progress."""

    def line(self, line: LogLine) -> None:
        """Show a line of the run's output. Raises BrokenPipeError if the reader has gone."""

    def question(self, text: str | None) -> None:
        """Show a question that a key answers; None removes it."""
