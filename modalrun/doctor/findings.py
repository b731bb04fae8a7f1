"""Collect the findings of checks that run side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from modalrun.errors import ModalrunError
from modalrun.run.run_plan import Target
from modalrun.util import check
from modalrun.util.check import Finding


@dataclass(frozen=True)
class Report:
    """The result of `modalrun doctor` or `modalrun smoke`.

    Attributes:
        target: Where a run would go.
        findings: One for each check, in the order in which they are shown.
        exit_code: Of the command; 0 without a problem.
    """

    target: Target
    findings: tuple[Finding, ...]
    seconds: float
    exit_code: int


class Findings:
    """The findings so far, one for each check. Every method may be called from any thread."""

    def __init__(self, checks: Iterable[str]) -> None:
        """Expect a finding of each of these checks."""
        self._checks = frozenset(checks)
        self._found: dict[str, Finding] = {}
        self._clocks: dict[str, float] = {}
        self._changed = threading.Condition()

    def put(self, finding: Finding) -> None:
        """Add a finding, unless its check has one or is not part of the examination."""
        with self._changed:
            if finding.check in self._checks:
                self._found.setdefault(finding.check, finding)
                self._changed.notify_all()

    def skip(self, checks: Iterable[str], reason: str) -> None:
        """Add the finding that some checks were not made."""
        for name in checks:
            self.put(Finding(name, "skipped", f"not checked: {reason}"))

    def get(self, name: str) -> Finding | None:
        """Return the finding of a check; None while there is none."""
        return self._found.get(name)

    def record_clock(self, server: str, ahead: float | None) -> None:
        """Record the seconds that this machine's clock is ahead of a server's."""
        if ahead is not None:
            self._clocks[server] = ahead

    def wait(self, seconds: float) -> None:
        """Wait until every check but that of the clock has a finding, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._checks - {"clock"} <= self._found.keys(), seconds)

    def complete(self, late: ModalrunError) -> tuple[Finding, ...]:
        """Return one finding for each check, as shown; `late` for those that have none yet."""
        self.put(check.clock(self._clocks))
        for name in self._checks:
            self.put(Finding.of_error(name, late))
        return tuple(check.in_order(self._found.values()))
