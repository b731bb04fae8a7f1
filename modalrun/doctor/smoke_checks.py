"""Judge what `modalrun smoke` has seen: a table of lines, and how each of them is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modalrun.driver.probe import facts_in, payload
from modalrun.errors import CapacityError, ModalrunError, UsageError
from modalrun.run.sandbox_exit import ExitKind, SandboxExit
from modalrun.util import check
from modalrun.util.check import Finding

SLOW_IMPORT, SLOW_LIST, SLOW_HISTORY = 20.0, 3.0, 10.0
"""Seconds above which a user notices it."""

REPORT = "Please report it, with 'modalrun smoke --output json'."
CORRECT = "Correct it where it is set: '--gpu', the run spec, or the stack's orchestrator."

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

    def __getitem__(self, name: str) -> Any:
        """Return what its probe has reported (the last report counts), or was seen outside."""
        told = {key: value for facts in facts_in(self.output) for key, value in facts.items()}
        return (self.more | told)[name]

    def all(self, name: str) -> list[Any]:
        """Return every report of a name, in order."""
        return [facts[name] for facts in facts_in(self.output) if name in facts]

    @property
    def kind(self) -> ExitKind | None:
        """The kind of its end."""
        return self.end.kind if self.end else None

    @property
    def told_end(self) -> str:
        """How its end was read."""
        if self.end is None:
            return "read as running"
        return f"read as '{self.end.kind.label}', code {self.end.exit_code}: {self.end.reason}"


Read = tuple[bool | check.State, str]
"""Whether it is as expected, or the state itself; and what was seen."""


def _writable(seen: Seen) -> Read:
    closed = [name for name, writable in seen["writable"].items() if not writable]
    if not closed:
        return True, ", ".join(seen["writable"])
    state: check.State = "differs" if closed == ["HOME"] else "broken"
    return state, f"nothing can be written to {' and '.join(closed)}"


def _zenml(name: str) -> Callable[[Seen], Read]:
    def read(seen: Seen) -> Read:
        state, message, hint = seen.all(name)[-1] if seen.all(name) else seen["zenml"]
        return state == "ok", f"{message}\n{hint}" if hint else message

    return read


def _listed(seen: Seen) -> Read:
    seconds = seen["listed"]
    if seconds is None:
        return "broken", "a running sandbox is not listed by its tags"
    return seconds < SLOW_LIST, f"found by its tags after {seconds:.1f} s"


def _input(seen: Seen) -> Read:
    lines = seen.all("line")
    if lines[:1] != ["first"]:
        return "broken", "no line arrives"
    if lines != ["first", "second"]:
        return "differs", "the line of a second writer arrives cut, or not at all"
    return True, "lines of two writers arrive"


def _clock(seen: Seen) -> Read:
    found = check.clock({"the sandbox": seen["ahead"]})
    if found.state == "ok":
        return True, f"this machine and the sandbox differ by {abs(seen['ahead']):.1f} s"
    return "differs" if found.state == "warning" else "broken", found.message


def same_output(text: str, what: str) -> Read:
    """Compare what was read of the probe's output with what it wrote, byte for byte."""
    written = payload().decode("utf-8", "replace")
    if text == written:
        return True, f"{len(payload()):,} bytes, {what}"
    # An odd byte may have become a line break, but each number has to come once and in order.
    come, due = (re.findall(r"^\d{5} ", one, re.MULTILINE) for one in (text, written))
    if come == due:
        return "differs", "all lines come once and in order, with other odd bytes"
    return "broken", f"of {len(due):,} lines {len(come):,} come, or in another order, {what}"


def _history(seen: Seen) -> Read:
    found = same_output(seen["history"], f"{seen['lag']:.1f} s after the end")
    return ("differs", found[1]) if found[0] is True and seen["lag"] > SLOW_HISTORY else found


def _end(expected: ExitKind, code: int) -> Callable[[Seen], Read]:
    def read(seen: Seen) -> Read:
        if seen.end and (seen.kind, seen.end.exit_code) == (expected, code):
            return True, f"exit code {code}"
        completed = ExitKind.COMPLETED in {expected, seen.kind}
        return "broken" if completed else "differs", seen.told_end

    return read


def _not_found(seen: Seen) -> Read:
    if "refused" in seen.more:
        return True, f"refused: {seen['refused']}"
    return seen.kind not in {None, ExitKind.COMPLETED}, seen.told_end


def _signalled(expected: ExitKind) -> Callable[[Seen], Read]:
    """Read an end from outside, and the signals that announce it."""

    def read(seen: Seen) -> Read:
        signals = seen.all("signal")
        if seen.kind is not expected:
            return "broken", seen.told_end
        if not signals:
            return "differs", f"killed after {seen.seconds:.1f} s, without a signal"
        grace = max(0.0, max(seen.all("alive"), default=0.0) - seen.all("at")[0])
        state: check.State = "ok" if len(signals) == 1 else "differs"
        return state, f"{', '.join(signals)}, {grace:.1f} s before the kill"

    return read


def _out_of_memory(seen: Seen) -> Read:
    if seen.all("held"):
        return "differs", "the limit is not kept"
    return seen.kind is ExitKind.OUT_OF_MEMORY, seen.told_end


def _gpu(seen: Seen) -> Read:
    if seen["gpus"]:
        return True, ", ".join(seen["gpus"])
    why = seen.all("why") or ["nvidia-smi shows none"]
    return "differs" if seen.local else "broken", f"none is seen in the sandbox: {why[0]}"


@dataclass(frozen=True)
class Line:
    """One line of the report.

    Attributes:
        label: Its title.
        trial: The trial that it is about; empty for those that `smoke` makes itself.
        read: Reads what was seen.
        does: What modalrun does where it is not as expected; empty where runs can't do without.
        do: What to do where it is broken.
    """

    label: str
    trial: str = ""
    read: Callable[[Seen], Read] = lambda seen: (True, "")
    does: str = ""
    do: str = REPORT


_ODD_BYTES = "modalrun shows control characters and bytes that are not UTF-8 by a sign."
_SHARES = "Each sandbox imports it once; with 'mode: pipeline' all steps share one sandbox."
_RECORD = "ZenML's record of the run counts, where it has its end."
_ASKS = (
    "modalrun asks a run to stop by its input, ends a step before its timeout, and takes one signal"
    " of several."
)
_NTP = "Set the clock (NTP): tokens and signed requests carry the time, and are refused."

LINES: dict[str, Line] = {
    "account": Line("Modal account"),
    "image": Line("image"),
    "variables": Line(
        "MODAL_ variables",
        "inside",
        # Sandboxes get the first, Functions the others too (modal.com/docs, read 2026-11-27).
        lambda s: (
            "MODAL_SANDBOX_ID" in s["variables"]
            and not {"MODAL_IS_REMOTE", "MODAL_ENVIRONMENT"} & {*s["variables"]},
            ", ".join(s["variables"]) or "none",
        ),
        "modalrun passes the environment's name and the driver's token itself.",
    ),
    "init": Line(
        "first process",
        "inside",
        lambda s: (
            1 in {s["pid"], s["parent"]},
            f"PID 1 is '{s['init']}', the trial's program has PID {s['pid']}",
        ),
        "modalrun's supervisor ends all that it has started, whatever PID 1 is.",
    ),
    "group": Line(
        "process group",
        "inside",
        lambda s: (
            s["group"] == s["pid"],
            f"the trial's program, PID {s['pid']}, is in the process group {s['group']}",
        ),
        "modalrun's supervisor gives its child a group of its own, so a signal comes once.",
    ),
    "user": Line(
        "user", "inside", lambda s: (s["uid"] == 0, f"id {s['uid']}"), "modalrun needs no root."
    ),
    "memory": Line(
        "memory limit",
        "inside",
        lambda s: (bool(s["memory"]), f"{s['memory']} MiB" if s["memory"] else "none to be read"),
        "modalrun learns from Modal's status that a sandbox ran out of memory.",
    ),
    "folders": Line(
        "writable folders",
        "inside",
        _writable,
        "modalrun and ZenML write to TMPDIR; your steps may need HOME.",
        "Use an image in which TMPDIR and the working folder can be written to.",
    ),
    "zenml": Line("ZenML", "inside", _zenml("zenml"), do="Run 'modalrun doctor'."),
    "artifact_store": Line(
        "artifact store", "inside", _zenml("artifact_store"), do="Run 'modalrun doctor'."
    ),
    "import_zenml": Line(
        "import of zenml",
        "inside",
        lambda s: (s["zenml_import"] < SLOW_IMPORT, f"{s['zenml_import']:.1f} s"),
        _SHARES,
    ),
    "import_modal": Line(
        "import of modal",
        "driver",
        lambda s: (s["modal_import"] < SLOW_IMPORT, f"{s['modal_import']:.1f} s"),
        _SHARES,
    ),
    "app": Line(
        "driver: app",
        "driver",
        lambda s: (
            s["driver_app"] == s["app"],
            f"a driver finds {'the same' if s['driver_app'] == s['app'] else 'another'} app",
        ),
        do="A driver's token has to lead to the same app: name 'modal_environment' and 'workspace'"
        " in the run spec, and check the token.",
    ),
    "child": Line("driver: sandbox", "driver", lambda s: (True, f"in {s['child']:.1f} s")),
    "list": Line("driver: list", "driver", _listed, "'stop' lists again until no sandbox is left."),
    "name": Line(
        "driver: name",
        "driver",
        lambda s: (
            s["taken"] and s["free"],
            f"{'taken' if s['taken'] else 'not taken'} while its sandbox runs,"
            f" {'free' if s['free'] else 'not free'} afterwards",
        ),
    ),
    "clock": Line("clock", "input", _clock, _NTP, _NTP),
    "input": Line(
        "standard input",
        "input",
        _input,
        "'modalrun stop' sends a run one line; 'stop --force' needs none.",
        "Stop runs with 'modalrun stop --force'.",
    ),
    "live": Line(
        "output, live", "output", lambda s: same_output(s.output, "as written"), _ODD_BYTES
    ),
    "late": Line(
        "output, late", "output", lambda s: same_output(s["late"], "afterwards"), _ODD_BYTES
    ),
    "history": Line(
        "output, history", "output", _history, f"'modalrun logs' waits for it. {_ODD_BYTES}"
    ),
    "exit_0": Line("end: code 0", "exit_0", _end(ExitKind.COMPLETED, 0), _RECORD),
    "exit_3": Line("end: code 3", "exit_3", _end(ExitKind.FAILED, 3), _RECORD),
    "kill": Line("end: kill -9", "kill", _end(ExitKind.TERMINATED, 137), _RECORD),
    "not_found": Line("end: no such command", "not_found", _not_found),
    "terminate": Line("end: terminate", "terminate", _signalled(ExitKind.TERMINATED), _ASKS),
    "timeout": Line("end: timeout", "timeout", _signalled(ExitKind.TIMED_OUT), _ASKS),
    "out_of_memory": Line(
        "end: out of memory",
        "out_of_memory",
        _out_of_memory,
        "modalrun's supervisor reports it as out of memory where only a step is killed.",
    ),
    "volume": Line(
        "volume",
        "volume",
        lambda s: (
            s["found"] == s["text"],
            f"the next sandbox {'reads' if s['found'] == s['text'] else 'does not find'} what one"
            " has written",
        ),
    ),
    "gpu": Line(
        "GPU", "gpu", _gpu, "The local Modal server records the request, and gives no GPU."
    ),
    "removed": Line("clean-up"),
}
"""The lines in the order in which they are shown."""


def judge(trial: str, seen: Seen | ModalrunError) -> list[Finding]:
    """Return the findings about one trial.

    Args:
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
    usual = CORRECT if isinstance(error, UsageError) else REPORT
    return "broken", error.problem, error.hint or usual


def finding(name: str, verdict: Verdict) -> Finding:
    """Return the finding of a line."""
    return Finding(name, *verdict, exit_code=1 if verdict[0] == "broken" else 0)


def _read(line: Line, seen: Seen) -> Verdict:
    if seen.kind is ExitKind.NOT_STARTED and line.trial != "not_found":
        return "broken", seen.told_end, "Try again. modalrun starts the sandbox of a step again."
    try:
        state, message = line.read(seen)
    except KeyError:
        # The probe has not come so far.
        last = next(reversed(seen.errors.splitlines()), "")
        return "broken", f"nothing is reported; the sandbox was {seen.told_end} {last}", line.do
    if isinstance(state, bool):
        state = "ok" if state else "differs" if line.does else "broken"
    return state, message, {"differs": line.does, "broken": line.do}.get(state)
