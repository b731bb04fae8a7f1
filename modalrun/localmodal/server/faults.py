"""Inject faults into RPCs, so that tests can see how a client handles them.

`faults.json` in the state folder, or the variable MODALRUN_LOCAL_FAULTS when the server starts,
holds a list of rules, or `{"rules": [...], "boot_delay": seconds, "builds": [...],
"retained": bytes, "disk_full": true, "clock": seconds}`. The keys of a rule:

    rpc       pattern for the RPC's name, such as "Sandbox*"
    skip      number of matching calls that pass first (default 0)
    times     number of calls that fail then (default 1; null: all)
    action    error        fail with `status` (a gRPC name, default UNAVAILABLE) and `message`
              disconnect   drop the connection before the call, or after `messages` of a stream
              lose_answer  perform the call, then drop the connection without answering
              delay        wait `seconds`, then continue
              hang         never answer

`builds` makes image builds fail: a list of `{"contains": text, "log": [lines]}`. A layer whose
commands contain the text fails with that log each time it is built.

`retained` limits the old bytes of a V2 sandbox's stream that a new reader gets, as on Modal's
cloud; the history keeps all. `boot_delay` is the time from the creation of a sandbox to the start
of its process. With `disk_full`, the disk of the state folder takes nothing more. `clock` is added
to the server's time. A changed file is read again and resets the counters.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from modalrun.util.regular_files import read_text

log = logging.getLogger(__name__)

FAULTS_VARIABLE = "MODALRUN_LOCAL_FAULTS"
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Fault:
    """A cut of the connection: after `messages` of a stream, or after the call (`perform`)."""

    messages: int = 0
    perform: bool = False


@dataclass
class _Rule:
    rpc: str
    action: str
    skip: int = 0
    times: int | None = 1
    status: str = "UNAVAILABLE"
    message: str = "a scripted fault"
    seconds: float = 0.0
    messages: int = 0

    def hits(self, rpc: str) -> bool:
        """Count a call; return whether the rule applies to it."""
        if self.times == 0 or not fnmatchcase(rpc, self.rpc):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The current rules."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loaded: tuple[int, int] | None = None
        self._rules: list[_Rule] = []
        self._boot_delay = 0.0
        self._disk_full = False
        self._clock = 0.0
        self._retained: int | None = None
        self._builds: list[tuple[str, list[str]]] = []
        if text := os.environ.get(FAULTS_VARIABLE):
            self._load(text)

    def _load(self, text: str) -> None:
        try:
            script: Any = json.loads(text)
            if isinstance(script, list):
                script = {"rules": script}
            self._rules = [_Rule(**rule) for rule in script.get("rules", [])]
            self._boot_delay = float(script.get("boot_delay", 0.0))
            self._disk_full = bool(script.get("disk_full"))
            self._clock = float(script.get("clock", 0.0))
            retained = script.get("retained")
            self._retained = None if retained is None else int(retained)
            self._builds = [(build["contains"], build["log"]) for build in script.get("builds", [])]
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            log.error("the fault script is not usable: %s", error)

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            if self._loaded == (stat.st_mtime_ns, stat.st_ino):
                return
            text = read_text(self._path, _MAX_BYTES)
        except OSError:
            return
        self._loaded = (stat.st_mtime_ns, stat.st_ino)
        self._load(text)

    @property
    def boot_delay(self) -> float:
        """Seconds between the creation of a sandbox and the start of its process."""
        self._refresh()
        return self._boot_delay

    def disk_is_full(self) -> bool:
        """Return whether the disk of the state folder takes nothing more."""
        self._refresh()
        return self._disk_full

    def clock(self) -> float:
        """Return the seconds by which the server's clock is ahead."""
        self._refresh()
        return self._clock

    @property
    def retained(self) -> int | None:
        """Old bytes of a stream that a new reader gets; None for all."""
        self._refresh()
        return self._retained

    def failing_build(self, commands: Sequence[str]) -> list[str] | None:
        """Return the log of a build that must fail, by its layer's commands; None otherwise."""
        self._refresh()
        text = "\n".join(commands)
        return next((log for contains, log in self._builds if contains in text), None)

    async def before(self, rpc: str) -> Fault | None:
        """Apply the first rule that matches a call; return a Fault that cuts the connection.

        Raises:
            GRPCError: The rule's action is `error`.
        """
        self._refresh()
        rule = next((rule for rule in self._rules if rule.hits(rpc)), None)
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
