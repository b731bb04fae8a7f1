"""Say what to do about a failure, by the reason of it that is stored. Pure."""

from __future__ import annotations

import re

from modalrun.run.run_plan import Mode, Target
from modalrun.run.sandbox_exit import ExitKind, SandboxExit

_MEMORY = (
    "raise 'settings: resources: memory' (or 'settings: orchestrator: memory_limit', where it is"
    " set)"
)
_KILLED = "if the step needed more memory than it was given, raise 'settings: resources: memory'"
_REFUSED = "raise 'settings: resources: memory', or let the step use less"
_OF_MACHINE = (
    "the local Modal server sets no limit of memory: if the machine had no more, let the step use"
    " less, or fewer steps run at once ('max_parallelism')"
)
_LOCAL = {
    _MEMORY: _OF_MACHINE,
    _KILLED: _OF_MACHINE,
    _REFUSED: (
        "let the step use less, or raise the limit of the shell ('ulimit -v'), and 'modalrun local"
        " stop', so that it holds"
    ),
}
"""What helps with target `local`, where it is something else."""
_TIMEOUT = (
    "raise 'settings: orchestrator: timeout' (or '--timeout'), that of the step if it has its own;"
    " it counts from the creation of the sandbox, less the time to record the end"
)
_HINTS = (
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        r"the sandbox has no module '\1': if it is a package's, add that to 'settings: docker:"
        " requirements' (or --set 'settings.docker.requirements=[PACKAGE]'); the local Modal server"
        " runs this Python, where 'pip install' adds it",
    ),
    (r"took longer than its timeout|reached its timeout", _TIMEOUT),
    (r"step's process was killed \(SIGKILL\)", _KILLED),
    (
        r"step's process ended with exit code",
        "look in the step's code and its libraries for a call of 'os._exit', or of C's 'exit'",
    ),
    (
        r"ended \(.*\) before modalrun began in it",
        "let the ENTRYPOINT of the image end with 'exec \"$@\"', which runs the sandbox's command,"
        " or remove 'keep_entrypoint' under 'image:'",
    ),
    # numpy has a class of its own.
    (r"\b_?(?:Array)?MemoryError\b", _REFUSED),
    (r"ran out of memory|more memory than its limit|evicted .* for the memory", _MEMORY),
)
"""Patterns of reasons, and what helps."""

_RUN_ENDED = re.compile(r"The run sandbox ended \((out of memory|evicted),")
"""What is recorded of the steps in a run sandbox that was ended as a whole."""


def hint_on_failure(reason: str | None, target: Target | None = None) -> str | None:
    """Return what to do about a failure; None if its reason does not say so.

    Args:
        reason: That of a step, or of a run, which names the step's.
        target: Where it ran; None if that is not known.
    """
    for pattern, text in _HINTS:
        if found := re.search(pattern, reason or ""):
            return _at(target, found.expand(text))
    return None


def ran_out_of_memory(reason: str | None, mode: Mode) -> bool:
    """Return whether the sandbox of a step needed more memory than it had asked for.

    Args:
        reason: Why the step ended; not the text of an exception, which may say anything.
        mode: In `pipeline` mode, its sandbox is that of the run.
    """
    if mode == "pipeline" and _RUN_ENDED.match(reason or ""):
        return True
    return hint_on_failure(reason) == _MEMORY


def hint_on_end(end: SandboxExit, mode: Mode, target: Target) -> str | None:
    """Return what to do about the end of a run sandbox; None if nothing is known to help."""
    if end.kind is ExitKind.TIMED_OUT:
        return _TIMEOUT
    if end.kind in {ExitKind.UNRECORDED, ExitKind.UNPREPARED}:
        return "see its output before it is run again"
    # No setting gives a driver more memory, and it is preempted without its steps.
    if mode == "pipeline" and end.kind in {ExitKind.OUT_OF_MEMORY, ExitKind.EVICTED}:
        return _at(target, _MEMORY)
    if mode == "pipeline" and end.kind is ExitKind.PREEMPTED:
        return "with 'mode: per_step' only the preempted step runs again, by itself"
    return None


def _at(target: Target | None, text: str) -> str:
    return _LOCAL.get(text, text) if target == "local" else text
