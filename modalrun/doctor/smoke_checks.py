"""Judge what `modalrun smoke` has seen: a table of lines, and how each of them is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modalrun.driver.probe import facts_in, payload
from modalrun.errors import CapacityError, ModalrunError
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.util import check
from modalrun.util.check import Finding

SLOW_IMPORT, SLOW_LIST, SLOW_HISTORY = 20.0, 3.0, 10.0
"""Seconds above which a user notices it."""

REPORT = "Please report it, with 'modalrun smoke --output json'."

Verdict = tuple[check.State, str, str | None]
"""A state, what was seen, and what modalrun does about it ("differs") or what to do ("broken")."""


@dataclass
class Seen:
    """What has been seen of the sandbox of one trial.

    Attributes:
        local: Whether it was a process of the local Modal server.
        output, errors: Its stdout and stderr, as they came.
        end: How it ended; None if it has not.
        seconds: From its creation to its end.
        more: What was seen from outside, by name.
    """

    local: bool = False
    output: str = ""
    errors: str = ""
    end: SandboxExit | None = None
    seconds: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What its probe has reported (the last report of a name), and what was seen outside."""
        told = {key: value for facts in facts_in(self.output) for key, value in facts.items()}
        return self.more | told

    @property
    def kind(self) -> ExitKind | None:
        """The kind of its end."""
        return self.end.kind if self.end else None

    @property
    def told_end(self) -> str:
        """How its end was read."""
        return (
            f"read as '{self.end.kind.label}', code {self.end.exit_code}: {self.end.reason}"
            if self.end
            else "read as running"
        )


def _ok(message: str) -> Verdict:
    return "ok", message, None


def _broken(message: str, do: str = REPORT) -> Verdict:
    return "broken", message, do


def _expect(
    good: Callable[[dict[str, Any]], bool], shown: Callable[[dict[str, Any]], str], does: str
) -> Callable[[Seen], Verdict]:
    """Judge facts of a probe: as expected, or with `does`, what modalrun does instead."""

    def judge(seen: Seen) -> Verdict:
        facts = seen.facts
        return _ok(shown(facts)) if good(facts) else ("differs", shown(facts), does)

    return judge


def _require(
    good: Callable[[dict[str, Any]], bool], shown: str, bad: str, do: str = REPORT
) -> Callable[[Seen], Verdict]:
    """Judge facts of a probe that runs can't do without."""
    return lambda seen: _ok(shown) if good(seen.facts) else _broken(bad, do)


def _zenml(name: str) -> Callable[[Seen], Verdict]:
    def judge(seen: Seen) -> Verdict:
        state, message, hint = seen.facts.get(name) or seen.facts["zenml"]
        return _ok(message) if state == "ok" else _broken(message, hint or "Run 'modalrun doctor'.")

    return judge


def _import(name: str) -> Callable[[Seen], Verdict]:
    return _expect(
        lambda facts: facts[name] < SLOW_IMPORT,
        lambda facts: f"{facts[name]:.1f} s",
        "Each sandbox imports it once; with 'mode: pipeline' all steps share one sandbox.",
    )


def _writable(seen: Seen) -> Verdict:
    folders = seen.facts["writable"]
    closed = [name for name, writable in folders.items() if not writable]
    message = f"nothing can be written to {' and '.join(closed)}"
    if closed == ["HOME"]:
        return "differs", message, "modalrun and ZenML write to TMPDIR; your steps may need HOME."
    do = "Use an image in which TMPDIR and the working folder can be written to."
    return _broken(message, do) if closed else _ok(", ".join(folders))


def _listed(seen: Seen) -> Verdict:
    seconds = seen.facts["listed"]
    if seconds is None:
        return _broken("a running sandbox is not listed by its tags")
    shown = f"found by its tags after {seconds:.1f} s"
    does = "'stop' lists again until no sandbox is left."
    return _ok(shown) if seconds < SLOW_LIST else ("differs", shown, does)


def _input(seen: Seen) -> Verdict:
    lines = [facts["line"] for facts in facts_in(seen.output) if "line" in facts]
    if lines[:1] != ["first"]:
        return _broken("no line arrives", "Stop runs with 'modalrun stop --force'.")
    if lines == ["first", "second"]:
        return _ok("lines of two handles arrive")
    does = "To stop a run takes one line; 'stop --force' needs none."
    return "differs", "what a second handle writes arrives cut, or not at all", does


def _clock(seen: Seen) -> Verdict:
    ahead = seen.more["ahead"]
    found = check.clock({"the sandbox": ahead})
    if found.state == "ok":
        return _ok(f"this machine and the sandbox differ by {abs(ahead):.1f} s")
    return "differs" if found.state == "warning" else "broken", found.message, found.hint


def same_output(text: str, what: str) -> Verdict:
    """Compare what was read of the probe's output with what it wrote, byte for byte."""
    written = payload().decode("utf-8", "replace")
    if text == written:
        return _ok(f"{len(payload()):,} bytes, {what}")
    # An odd byte may have become a line break, but each number has to come once and in order.
    come, due = (re.findall(r"^\d{5} ", one, re.MULTILINE) for one in (text, written))
    if come == due:
        does = "modalrun shows control characters and bytes that are not UTF-8 by a sign."
        return "differs", "all lines come once and in order, with other odd bytes", does
    return _broken(f"of {len(due):,} lines {len(come):,} come, or in another order, {what}")


def _history(seen: Seen) -> Verdict:
    lag = seen.more["lag"]
    verdict = same_output(seen.more["history"], f"{lag:.1f} s after the end")
    if verdict[0] == "broken" or lag < SLOW_HISTORY:
        return verdict
    return "differs", verdict[1], "'modalrun logs' shows the last lines later than 'submit'."


def _end(expected: ExitKind, code: int) -> Callable[[Seen], Verdict]:
    def judge(seen: Seen) -> Verdict:
        assert seen.end is not None
        if (seen.kind, seen.end.exit_code) == (expected, code):
            return _ok(f"exit code {code}")
        if ExitKind.COMPLETED in {expected, seen.kind}:
            return _broken(seen.told_end)
        return "differs", seen.told_end, "ZenML's record of the run counts, where it has its end."

    return judge


def _not_found(seen: Seen) -> Verdict:
    if problem := seen.more.get("refused"):
        return _ok(f"refused: {problem}")
    good = seen.kind not in {None, ExitKind.COMPLETED}
    return _ok(seen.told_end) if good else _broken(seen.told_end)


def _signalled(expected: ExitKind) -> Callable[[Seen], Verdict]:
    """Judge an end from outside, and the signals that announce it."""

    def judge(seen: Seen) -> Verdict:
        facts = facts_in(seen.output)
        came = [one for one in facts if "signal" in one]
        if seen.kind is not expected:
            return _broken(seen.told_end)
        if not came:
            does = "modalrun ends a step before its timeout, and asks a run to stop by its input."
            return "differs", f"killed after {seen.seconds:.1f} s, without a signal", does
        alive = max((one["alive"] for one in facts if "alive" in one), default=0.0)
        grace = max(0.0, alive - came[0]["at"])
        shown = f"{', '.join(one['signal'] for one in came)}, {grace:.1f} s before the kill"
        does = "modalrun's processes take the first one, and ignore the others."
        return _ok(shown) if len(came) == 1 else ("differs", shown, does)

    return judge


def _out_of_memory(seen: Seen) -> Verdict:
    if seen.kind is ExitKind.OUT_OF_MEMORY:
        return _ok(seen.told_end)
    if "held" in seen.facts:
        return "differs", "the limit is not kept", "No step is ended for it."
    return "differs", seen.told_end, "Where only a step is killed, modalrun's supervisor says so."


def _gpu(seen: Seen) -> Verdict:
    if found := seen.facts["gpus"]:
        return _ok(", ".join(found))
    message = f"none is seen in the sandbox: {seen.facts.get('why', 'nvidia-smi shows none')}"
    if seen.local:
        return "differs", message, "The local Modal server records the request, and gives none."
    return _broken(message)


@dataclass(frozen=True)
class Line:
    """One line of the report: its title, the trial that it is about, and how that is read."""

    label: str
    trial: str = ""
    judge: Callable[[Seen], Verdict] | None = None


LINES: dict[str, Line] = {
    "account": Line("Modal account"),
    "image": Line("image"),
    "variables": Line(
        "MODAL_ variables",
        "inside",
        _expect(
            # Sandboxes get the first, Functions the others too (modal.com/docs, read 2026-11-27).
            lambda facts: (
                "MODAL_SANDBOX_ID" in facts["variables"]
                and not {"MODAL_IS_REMOTE", "MODAL_ENVIRONMENT"} & {*facts["variables"]}
            ),
            lambda facts: ", ".join(facts["variables"]) or "none",
            "modalrun passes the environment's name and the driver's token itself.",
        ),
    ),
    "init": Line(
        "first process",
        "inside",
        _expect(
            lambda facts: 1 in {facts["pid"], facts["parent"]},
            lambda facts: f"{facts['init']}; the program is process {facts['pid']}",
            "modalrun's supervisor ends all that it has started, whatever PID 1 is.",
        ),
    ),
    "group": Line(
        "process group",
        "inside",
        _expect(
            lambda facts: facts["group"] == facts["pid"],
            lambda facts: f"{facts['group']}; the program is process {facts['pid']}",
            "modalrun's supervisor gives its child a group of its own, so a signal comes once.",
        ),
    ),
    "user": Line(
        "user",
        "inside",
        _expect(
            lambda facts: facts["uid"] == 0,
            lambda facts: f"id {facts['uid']}",
            "modalrun needs no root.",
        ),
    ),
    "memory": Line(
        "memory limit",
        "inside",
        _expect(
            lambda facts: facts["memory"] is not None,
            lambda facts: f"{facts['memory']} MiB" if facts["memory"] else "none to be read",
            "modalrun takes an end for want of memory from Modal's status.",
        ),
    ),
    "folders": Line("writable folders", "inside", _writable),
    "zenml": Line("ZenML", "inside", _zenml("zenml")),
    "artifact_store": Line("artifact store", "inside", _zenml("artifact_store")),
    "import_zenml": Line("import of zenml", "inside", _import("zenml_import")),
    "import_modal": Line("import of modal", "driver", _import("modal_import")),
    "app": Line(
        "driver: app",
        "driver",
        _require(
            lambda facts: facts["driver_app"] == facts["app"],
            "a driver finds the same app",
            "a driver's token leads to another app, so 'stop' would miss its sandboxes",
            "Name 'modal_environment' and 'workspace' in the run spec, and check the token.",
        ),
    ),
    "child": Line("driver: sandbox", "driver", lambda s: _ok(f"in {s.facts['child']:.1f} s")),
    "list": Line("driver: list", "driver", _listed),
    "name": Line(
        "driver: name",
        "driver",
        _require(
            lambda facts: facts["taken"] and facts["free"],
            "taken while its sandbox runs, and free afterwards",
            "not unique while its sandbox runs, or not free afterwards",
        ),
    ),
    "clock": Line("clock", "input", _clock),
    "input": Line("standard input", "input", _input),
    "live": Line("output, live", "output", lambda s: same_output(s.output, "as written")),
    "late": Line("output, late", "output", lambda s: same_output(s.more["late"], "afterwards")),
    "history": Line("output, history", "output", _history),
    "exit_0": Line("end: code 0", "exit_0", _end(ExitKind.COMPLETED, 0)),
    "exit_3": Line("end: code 3", "exit_3", _end(ExitKind.FAILED, 3)),
    "kill": Line("end: kill -9", "kill", _end(ExitKind.TERMINATED, 137)),
    "not_found": Line("end: no such command", "not_found", _not_found),
    "terminate": Line("end: terminate", "terminate", _signalled(ExitKind.TERMINATED)),
    "timeout": Line("end: timeout", "timeout", _signalled(ExitKind.TIMED_OUT)),
    "out_of_memory": Line("end: out of memory", "out_of_memory", _out_of_memory),
    "volume": Line(
        "volume",
        "volume",
        _require(
            lambda facts: facts["found"] == facts["text"],
            "what one sandbox writes, the next one reads",
            "what one sandbox writes, the next one does not find",
        ),
    ),
    "gpu": Line("GPU", "gpu", _gpu),
    "removed": Line("clean-up"),
}
"""The lines in the order in which they are shown. Those without a judge are about no trial."""


def judge(trial: str, seen: Seen | ModalrunError) -> list[Finding]:
    """Return the findings about one trial.

    Args:
        trial: Its name.
        seen: What was seen, or the error that kept the trial from its end.
    """
    return [
        finding(
            name, of_error(seen, name) if isinstance(seen, ModalrunError) else _read(line, seen)
        )
        for name, line in LINES.items()
        if trial and line.trial == trial
    ]


def of_error(error: ModalrunError, line: str) -> Verdict:
    """Return the verdict about a line whose trial an error has prevented."""
    if line == "gpu" and isinstance(error, CapacityError):
        return "differs", error.problem, "modalrun tries again, and the next GPU type of a list."
    return _broken(error.problem, error.hint or REPORT)


def finding(name: str, verdict: Verdict) -> Finding:
    """Return the finding of a line."""
    return Finding(name, *verdict, exit_code=1 if verdict[0] == "broken" else 0)


def _read(line: Line, seen: Seen) -> Verdict:
    assert line.judge is not None
    if seen.kind is ExitKind.NOT_STARTED and line.trial != "not_found":
        return _broken(seen.told_end, "Try again. modalrun starts the sandbox of a step again.")
    try:
        return line.judge(seen)
    except KeyError:
        # The probe has not come so far.
        last = next(reversed(seen.errors.splitlines()), "")
        return _broken(f"nothing is reported; the sandbox was {seen.told_end} {last}".strip())
