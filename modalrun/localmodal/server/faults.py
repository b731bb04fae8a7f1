"""Inject faults into RPCs and sandboxes, so that tests can see how a client handles them.

`faults.json` in the state folder, or the variable MODALRUN_LOCAL_FAULTS when the server starts,
holds a list of rules, or an object with the attributes of `Script` as keys. docs/local-server.md
has all keys with their meanings.

A changed file is read again and resets the counters. With a mistake in it a client that begins
(ClientHello, AppGetOrCreate) is refused: a fault that never comes looks like one that is survived.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_proto import task_command_router_pb2

from modalrun.util.nearest import did_you_mean
from modalrun.util.regular_files import read_text

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

log = logging.getLogger(__name__)

FAULTS_VARIABLE = "MODALRUN_LOCAL_FAULTS"
_MAX_BYTES = 1_000_000

PREEMPTION_GRACE = 30.0
"""Seconds from SIGINT to SIGKILL (`modal/exception.py:300`, 1.6.4).

modal.com/docs/guide/preemption (read 2026-11-28) tells of an interrupt and a grace period. No such
page tells of a signal before `terminate` or a timeout, so these kill at once.
"""

PREEMPTED = "preempted"
NOT_SCHEDULED = "not-scheduled"

_Result = api.GenericResult
ENDS: dict[str, tuple[int, int, str]] = {
    "failure-0": (_Result.GENERIC_STATUS_FAILURE, 0, ""),
    "out-of-memory": (_Result.GENERIC_STATUS_KERNEL_OOM_KILL, 137, ""),
    "evicted": (_Result.GENERIC_STATUS_MEMORY_MANAGER_EVICTION, 137, ""),
    "thrashing": (_Result.GENERIC_STATUS_MEMORY_THRASHING_EVICTION, 137, ""),
    PREEMPTED: (_Result.GENERIC_STATUS_INTERNAL_FAILURE, 137, "The sandbox was preempted."),
    NOT_SCHEDULED: (_Result.GENERIC_STATUS_INIT_FAILURE, 1, "loading container failed"),
}
"""Status, exit code and text of each scripted end. What Modal's codes are is not documented."""


_ACTIONS = ("error", "disconnect", "lose_answer", "delay", "hang")
_RPCS = tuple(
    method.name
    for module in (api, task_command_router_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)


def _require(key: str, word: str, known: Sequence[str]) -> None:
    if not any(fnmatchcase(one, word) for one in known):
        guess = did_you_mean(word, known, f"There are {', '.join(known[:20])}.")
        raise ValueError(f"there is no {key} '{word}'. {guess}")


@dataclass(frozen=True)
class Fault:
    """A cut of the connection: after `messages` of a stream, or after the call (`perform`)."""

    messages: int = 0
    perform: bool = False


class _Strict:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(kw_only=True)
class _Counted(_Strict):
    skip: int = 0
    times: int | None = 1

    def hits(self, *, matches: bool) -> bool:
        """Count a case that matches; return whether the fault applies to it."""
        if self.times == 0 or not matches:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(kw_only=True)
class _Rule(_Counted):
    rpc: str
    action: str
    status: str = "UNAVAILABLE"
    message: str = "a scripted fault"
    seconds: float = 0.0
    messages: int = 0

    def __post_init__(self) -> None:
        _require("rpc", self.rpc, _RPCS)
        _require("action", self.action, _ACTIONS)
        _require("status", self.status, tuple(Status.__members__))


@dataclass(kw_only=True)
class SandboxFault(_Counted):
    """The scripted end of a sandbox."""

    end: str
    role: str | None = None
    after: float | None = None
    grace: float = PREEMPTION_GRACE

    def __post_init__(self) -> None:
        _require("end", self.end, tuple(ENDS))
        self.status, self.exit_code, self.text = ENDS[self.end]

    @property
    def is_told_afterwards(self) -> bool:
        """Whether the process ends by itself, and only what Modal says about it is scripted."""
        return self.after is None and self.end != PREEMPTED

    def timers(
        self, interrupt: Callable[[], object], kill: Callable[[int, str], object]
    ) -> list[asyncio.TimerHandle]:
        """Arm the end of a sandbox whose process starts now.

        Args:
            interrupt: Sends SIGINT to the processes.
            kill: Kills the sandbox, with a status and a text.
        """
        later, after = asyncio.get_running_loop().call_later, self.after
        if self.end == PREEMPTED:
            after = after or 0.0
            return [
                later(after, interrupt),
                later(after + self.grace, kill, self.status, self.text),
            ]
        return [] if after is None else [later(after, kill, self.status, self.text)]


@dataclass(frozen=True)
class _Build(_Strict):
    contains: str
    log: list[str]


@dataclass(frozen=True)
class Lags(_Strict):
    """How many seconds behind the server's answers are.

    Attributes:
        history: Of AppFetchLogs and AppCountLogs: later entries are not there yet.
        list: Of SandboxList: it misses newer sandboxes, and shows those that ended later.
    """

    history: float = 0.0
    list: float = 0.0


@dataclass
class Script(_Strict):
    """What goes wrong.

    Attributes:
        rules: Failing RPCs.
        sandboxes: How sandboxes end.
        lags: Answers that lag.
        builds: Image builds that fail: a layer whose commands contain the text "contains" fails
            with the lines "log", each time it is built.
        scheduling: GPU type -> seconds until there is a place for a sandbox; None: never.
        boot_delay: Seconds between the creation of a sandbox, or since there is a place for it, and
            the start of its process.
        retained: Old bytes of a V2 sandbox's stream that a new reader gets, as on Modal's cloud;
            None for all. The history keeps all.
        disk_full: Whether the disk of the state folder takes nothing more.
        clock: Seconds by which the server's clock is ahead.
    """

    rules: list[_Rule] = field(default_factory=list)
    sandboxes: list[SandboxFault] = field(default_factory=list)
    lags: Lags = field(default_factory=Lags)
    builds: list[_Build] = field(default_factory=list)
    scheduling: dict[str, float | None] = field(default_factory=dict)
    boot_delay: float = 0.0
    retained: int | None = None
    disk_full: bool = False
    clock: float = 0.0

    def has_place(self, gpu: str, waited: float) -> bool:
        """Return whether there is a place for a sandbox that has waited for so many seconds."""
        seconds = self.scheduling.get(gpu, 0.0)
        return seconds is not None and waited >= seconds


class Faults:
    """The current script."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problem: str | None = None
        self._loaded: tuple[int, int, int] | None = None
        self._script = Script()
        if text := os.environ.get(FAULTS_VARIABLE):
            self._load(text, FAULTS_VARIABLE)

    def _load(self, text: str, place: str) -> None:
        from pydantic import TypeAdapter, ValidationError

        try:
            keys: Any = json.loads(text)
            keys = {"rules": keys} if isinstance(keys, list) else keys
            self._script = TypeAdapter(Script).validate_python(keys)
            self._problem = None
            return
        except ValidationError as invalid:
            reason = _described(invalid.errors(include_url=False))
        except (ValueError, RecursionError) as error:
            reason = str(error)
        self._problem = f"The fault script of the local Modal server, {place}, is wrong: {reason}"
        log.error("%s", self._problem)

    @property
    def script(self) -> Script:
        """The script as the file has it now."""
        try:
            stat = self._path.stat()
            # The size, because the clock of files is coarse.
            version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if self._loaded != version:
                text = read_text(self._path, _MAX_BYTES)
                self._loaded = version
                self._load(text, str(self._path.absolute()))
        except FileNotFoundError:
            if self._loaded is not None:
                self._loaded, self._script, self._problem = None, Script(), None
        except OSError:
            pass
        return self._script

    def current_problem(self) -> str | None:
        """Return what is wrong with the script as the file has it now; None if nothing."""
        _ = self.script
        return self._problem

    def failing_build(self, commands: Sequence[str]) -> list[str] | None:
        """Return the log of a build that must fail, by its layer's commands; None otherwise."""
        text = "\n".join(commands)
        return next((one.log for one in self.script.builds if one.contains in text), None)

    def end_of(self, role: str | None) -> SandboxFault | None:
        """Return the scripted end of a new sandbox, by its role; None for its own end."""
        faults = self.script.sandboxes
        return next((one for one in faults if one.hits(matches=one.role in {None, role})), None)

    async def before(self, rpc: str) -> Fault | None:
        """Apply the first rule that matches a call; return a Fault that cuts the connection.

        Raises:
            GRPCError: The rule's action is `error`. Or the script is wrong, and a client begins.
        """
        rules = self.script.rules
        # Not later calls: a file may be read while it is being written.
        if self._problem is not None and rpc in ("ClientHello", "AppGetOrCreate"):
            raise GRPCError(Status.INVALID_ARGUMENT, self._problem)
        rule = next((one for one in rules if one.hits(matches=fnmatchcase(rpc, one.rpc))), None)
        if rule is None:
            return None
        log.info("a scripted fault: %s: %s", rpc, rule.action)
        if rule.action == "error":
            raise GRPCError(Status[rule.status], rule.message)
        if rule.action == "delay":
            await asyncio.sleep(rule.seconds)
        elif rule.action == "hang":
            await asyncio.get_running_loop().create_future()
        elif rule.action == "disconnect":
            return Fault(messages=rule.messages)
        elif rule.action == "lose_answer":
            return Fault(perform=True)
        return None


def _described(errors: Sequence[ErrorDetails]) -> str:
    """Say what is wrong with a script: the key, and the nearest one that there is."""
    unknown = (one for one in errors if one["type"] == "unexpected_keyword_argument")
    error = next(unknown, errors[0])
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    where = where.removeprefix(".")
    if error["type"] != "unexpected_keyword_argument":
        message = error["msg"].removeprefix("Value error, ").rstrip(".")
        return f"{where}: {message}." if where else f"{message}."
    of = {"rules": _Rule, "sandboxes": SandboxFault, "lags": Lags, "builds": _Build}
    owner: Any = of[str(error["loc"][0])] if len(error["loc"]) > 1 else Script
    known = [one.name for one in fields(owner)]
    guess = did_you_mean(str(error["loc"][-1]), known, f"It has {', '.join(known)}.")
    return f"{where}: there is no such key. {guess}"
