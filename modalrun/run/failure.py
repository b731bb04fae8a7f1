"""Describe why a step has failed, from the exception that ZenML stores with it. Pure."""

from __future__ import annotations

import itertools
import re
import signal
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modalrun.run.contract import CODE_FOLDER, LAST_LINES, OWN_FOLDER
from modalrun.run.values import LONGEST_TEXT
from modalrun.util.text import cut, indented_line, one_line

_LONGEST_NAME = 200
_LONGEST_LINE = 1_000
_LONGEST_TRACEBACK = 200_000
_LONGEST_TRACE = 60

# The local Modal server has a folder for each sandbox, which stands for its root. A sandbox that is
# kept warm has a copy for each step, where its user may write.
_COPY = f"{re.escape(OWN_FOLDER)}\\w+/{CODE_FOLDER.rpartition('/')[2]}"
IN_CODE = rf"/(?:(?:[^\"]*/sandboxes/sb-[^/\"]+/root/)?{CODE_FOLDER[1:]}|(?:[^\"]*?/)?{_COPY})/"
"""The pattern of the source tree's folder at the begin of a path in a sandbox."""

_FRAME = re.compile(rf'( *File "){IN_CODE}([^"]+)(", line (\d+))')
_WARNING = re.compile(rf"{IN_CODE}(?=[^:\"]+:\d+: )")
HANDLERS = ("zenml/orchestrators/signal_handler.py", "modalrun/driver/processes/process.py")
"""Where a signal raises an exception in a step: not where the step was."""

_BELOW = re.compile(rf' *File "[^"]*(?:/modalrun/(?:driver|util)/|{HANDLERS[0]}")')
"""A frame below a step's code that is not where the step was."""

_DEATH = re.compile(
    r"The .+ (?:ended with exit code (\d{1,3})|died of signal (\d{1,3})|died of (SIG[A-Z0-9]+)"
    r"|was (killed) .+)\."
)
"""What `driver/processes/death.py` says of a process."""

_NO_CODE = re.compile(r'[ ^~]*|  File "<frozen importlib.*')
"""A line of a traceback that marks a part of the line above, or is about Python's import."""


@dataclass(frozen=True)
class Failure:
    """Why a step has failed.

    Attributes:
        message: A sentence, or the first line of the exception's text; may be empty.
        kind: The class of the exception; None if it was none, as for a process that was killed.
        place: The line of the project's code: "lib/prep.py:12"; None if it is not known.
        lines: The last lines of the traceback, or of what the step has printed.
        trace: More of them.
    """

    message: str
    kind: str | None = None
    place: str | None = None
    lines: tuple[str, ...] = ()
    trace: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        """Say it in one line: "KeyError: 'rate' (lib/prep.py:12)"."""
        text = ": ".join(filter(None, (self.kind, self.message)))
        return f"{text} ({self.place})" if self.place else text

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process that has died, 128 and more for a signal; None for none."""
        found = _DEATH.fullmatch(self.message) if self.kind is None else None
        if found is None:
            return None
        code, number, name, killed = found.groups()
        if code:
            return int(code)
        return 128 + (int(number or 0) or getattr(signal, "SIGKILL" if killed else name, 0))

    @staticmethod
    def of(error: BaseException) -> Failure:
        """Describe an exception as `read_failure` describes its record."""
        text = "".join(traceback.format_exception(error))
        try:
            message = str(error)
        except Exception as second:
            message = f"its text can't be made: {type(second).__name__}"
        return _read(text, type(error).__name__, message)


def has_failed(state: str, failure: Failure | None, run: str) -> bool:
    """Return whether a step has failed; ZenML calls one stopped whose retries did not come.

    Args:
        run: ZenML's status of its run.
    """
    own = failure is not None and bool(failure.kind or failure.lines)
    return state == "failed" or (state == "stopped" and own and run == "failed")


def read_failure(trace: str, source: str | None, message: str | None) -> Failure | None:
    """Read what ZenML stores of an exception; None if that is nothing.

    Args:
        trace: Its traceback; without a class the lines that the step has printed, and a sentence.
        source: The import path of its class.
    """
    if source:
        return _read(trace, source.rpartition(".")[2], message or "")
    message = (message or "").strip()
    lines = [*_lines(trace.rstrip().removesuffix(message)), *message.splitlines()[:1]]
    text = one_line(lines[-1], LONGEST_TEXT) if lines else ""
    if not text:
        return None
    before = lines[:-1]
    return Failure(text, None, _place(before), _last(before), _last(before, _LONGEST_TRACE))


def with_lines(sentence: str, lines: Sequence[str]) -> str:
    """Return the text to store as the traceback of a failure that was no exception."""
    return "\n".join((*lines, sentence))


def trace_of(error: BaseException) -> list[str]:
    """Return the lines of the project's part of a traceback, without the exception.

    What calls the project's own first line is ZenML's and modalrun's. So is what its last line has
    called through a handler or a stream of theirs.
    """
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    own = [number for number, text in enumerate(frames) if _FRAME.match(text)]
    if not own:
        return []
    below = itertools.takewhile(lambda text: not _BELOW.match(text), frames[own[-1] + 1 :])
    return "".join((*frames[own[0] : own[-1] + 1], *below)).splitlines()


RUN_REASON = 250
"""Characters of a reason that ZenML stores with a run (a column of 255)."""


def of_steps(failed: Mapping[str, str]) -> str:
    """Say which steps of a run have failed, and why the first one has, as far as there is room.

    Args:
        failed: Why each has, by its name, the first one first.
    """
    name, reason = next(iter(failed.items()))
    more = len(failed) - 1
    begin = f"Step `{name}` failed: "
    others = f"; {more} more step{'s' * (more > 1)} failed." if more else ""
    return f"{begin}{cut(reason, RUN_REASON - len(begin) - len(others))}{others}"


def of_raising_step(raised: Failure, failed: Mapping[str, Failure]) -> str | None:
    """Say which steps of a run have failed if one of them is what a dynamic pipeline has raised.

    Args:
        raised: What the pipeline's function has raised.
        failed: Why each step has failed, by its name.

    Returns:
        None if it is the function's own.
    """
    for name, known in failed.items():
        # ZenML raises a RuntimeError for a failure that was no exception, and makes a KeyError of
        # the text of one, which quotes it again.
        texts = {known.message, repr(known.message)}
        if known.kind in {None, raised.kind} and raised.message in texts:
            others = {other: "" for other in failed if other != name}
            return of_steps({name: str(known), **others})
    return None


def relative(line: str) -> str:
    """Return a line of output with a path in the sandbox relative to the source root.

    Only in a traceback and in a warning of Python: elsewhere somebody may want the whole path.
    """
    if CODE_FOLDER.rpartition("/")[2] not in line or len(line) > _LONGEST_LINE:
        return line
    return _WARNING.sub("", _FRAME.sub(r"\1\2\3", line), count=1)


def _read(trace: str, kind: str, message: str) -> Failure:
    lines, rest = _lines(trace), list[str]()
    for number in range(len(lines) - 1, -1, -1):
        # Its own line: the class and the text, which are told before.
        if lines[number].partition(":")[0].rpartition(".")[2] == kind:
            lines, rest = lines[:number], lines[number + 1 :]
            break
    first, place = next(iter(message.strip().splitlines()), ""), _place(lines)
    if place is not None:
        # A SyntaxError names it in its text, too.
        file, _, row = place.rpartition("/")[2].rpartition(":")
        first = first.removesuffix(f" ({file}, line {row})")
    return Failure(
        one_line(first, LONGEST_TEXT),
        one_line(kind, _LONGEST_NAME),
        place,
        _last(lines, rest=rest),
        _last(lines, _LONGEST_TRACE, rest=rest),
    )


def _lines(trace: str) -> list[str]:
    """Return the lines of a traceback that are about code.

    Each part of it begins with the project's own first line: what calls that is ZenML's and
    modalrun's. ZenML cuts only the first part, of the exception that led to the others.
    """
    lines = trace[-_LONGEST_TRACEBACK:].rstrip().splitlines()
    result: list[str] = []
    calling = None
    for line in (line for line in lines if not _NO_CODE.fullmatch(line)):
        if line.startswith("Traceback (most recent call last)"):
            calling = len(result) + 1
        elif calling is not None and not line.startswith(" "):
            calling = None
        elif calling is not None and len(line) <= _LONGEST_LINE and _FRAME.match(line):
            del result[calling:]
            calling = None
        result.append(line)
    return result


def _place(lines: Sequence[str]) -> str | None:
    """Return the last line of the project's code in a traceback."""
    for line in reversed(lines):
        # Nobody has such a path, and the pattern takes quadratic time.
        if len(line) <= _LONGEST_LINE and (found := _FRAME.match(line)):
            return f"{one_line(found[2], _LONGEST_LINE)}:{found[4]}"
    return None


def _last(
    lines: Sequence[str], count: int = LAST_LINES, *, rest: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the rest of a message, and then the last lines, so far as there is room."""
    rest = rest[:count]
    shown = [*rest, *lines[max(0, len(lines) - count + len(rest)) :]]
    return tuple(indented_line(relative(line), _LONGEST_LINE) for line in shown)
