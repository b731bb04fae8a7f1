"""Findings of checks that run side by side."""

from __future__ import annotations

from modalrun.doctor.findings import Findings
from modalrun.errors import ConnectionLostError
from modalrun.util.check import Finding

LATE = ConnectionLostError("no answer within 30 s")


def test_the_first_finding_of_a_check_counts() -> None:
    findings = Findings(["stack", "clock"])
    findings.put(Finding("stack", "ok", "first"))
    findings.put(Finding("stack", "warning", "second"))
    findings.skip(["stack"], "a reason")
    assert findings.get("stack") == Finding("stack", "ok", "first")


def test_a_check_that_is_not_part_of_the_examination_is_left_out() -> None:
    findings = Findings(["stack", "clock"])
    findings.put(Finding("pipeline", "ok", "never shown"))
    findings.skip(["zenml_login"], "a reason")
    assert [finding.check for finding in findings.complete(LATE)] == ["stack", "clock"]


def test_a_check_without_a_finding_is_late() -> None:
    findings = Findings(["stack", "zenml_login", "clock"])
    findings.put(Finding("stack", "ok", "there"))
    login, stack, clock = findings.complete(LATE)
    assert (login.state, login.exit_code, login.message) == ("problem", 8, "no answer within 30 s")
    assert (stack.state, clock.state) == ("ok", "skipped")


def test_waiting_ends_with_the_last_finding_and_needs_none_of_the_clock() -> None:
    findings = Findings(["stack", "clock"])
    findings.put(Finding("stack", "ok", "there"))
    # The test would reach its own time limit if this did not return at once.
    findings.wait(600)


def test_the_clock_furthest_off_is_the_finding() -> None:
    findings = Findings(["clock"])
    findings.record_clock("Modal", None)
    findings.record_clock("ZenML", -1000)
    findings.record_clock("Modal", 2)
    (clock,) = findings.complete(LATE)
    assert (clock.state, clock.exit_code) == ("problem", 3)
    assert "1000 s behind ZenML" in clock.message
