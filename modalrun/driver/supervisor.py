"""Supervise the process that does a sandbox's work, as the first process of every sandbox.

The supervisor imports neither SDK, so it starts at once. It starts the runner as its child, passes
signals on and ends the child at the deadline. If the child dies without recording its end (out of
memory, a segfault), the supervisor has the end recorded in ZenML. The child's output passes
through it and leaves as valid UTF-8: one invalid byte would end Modal's own stream reader
(`modal/io_streams.py:214`, 1.6.4). No line of user code passes for an event of modalrun
(`run/event_proof.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from modalrun.driver import usage_sampler
from modalrun.driver.broker_link import BrokerLink
from modalrun.driver.lines.output_pumps import last_lines, pump, write_end
from modalrun.driver.processes import child_environment, death, privileges, spawn
from modalrun.driver.processes.deadline import TERMINATE_GRACE_SECONDS, age, margin
from modalrun.run import contract, notes, usage_log
from modalrun.run.event_proof import KEY_BYTES
from modalrun.util.regular_files import open_inside

DRAIN_SECONDS = 2.0
"""How long to wait for output that a dead child has left in its pipes."""

_LONGEST_FILE = 100_000
"""Bytes of a file at most; a variable holds 128 KiB."""

_RECORDED = (contract.EXIT_COMPLETED, contract.EXIT_FAILED, contract.EXIT_TERMINATED)
"""Exit codes of a runner that has recorded its end."""

_FROM_OUTSIDE = (contract.EXIT_INTERRUPTED, contract.EXIT_KILLED, contract.EXIT_TERMINATED)


FINALIZE_MODULE = "modalrun.driver.finalize"

_token: dict[str, str] = {}
_brokers: list[BrokerLink] = []
_broker_pumps: list[threading.Thread] = []
_forks: list[spawn.Ahead] = []


def main() -> int:
    """Run `python -m <arguments>` under supervision; return the sandbox's exit code."""
    # A preemption before anything has begun: exit code 130, as later, and no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    privileges.drop_tracing()
    privileges.hide_process()
    if _has_broker():
        privileges.hide_variables(contract.MODAL_TOKEN)
        # For the broker alone.
        _token.update({name: os.environ.pop(name) for name in contract.MODAL_TOKEN})
    try:
        environment = child_environment.create()
    except OSError as error:
        reason = f"The {_subject()} can't start: {error}."
        _log(reason)
        if not (contract.STEP in os.environ or _is_driver()):
            _finalize(reason, os.environ, time.time())
        return contract.EXIT_UNPREPARED
    try:
        return _Supervision(environment).run()
    finally:
        # Else the kernel closes their pipes only once it has freed the memory of this process.
        for fork in _forks:
            fork.close()
        for broker in _brokers:
            broker.end()
        _drain(_broker_pumps)


class _Supervision:
    """Run a child, and perhaps another one after it, and settle what it leaves unrecorded."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._timeout = float(os.environ[contract.TIMEOUT])
        self._overdue = f"The {_subject()} took longer than its timeout of {self._timeout:g} s."
        left = self._timeout - age(self._timeout) - margin(self._timeout)
        self._deadline = time.monotonic() + left
        self._earlier_kills = death.out_of_memory_kills()
        # The first signal; later ones change nothing.
        self._asked: int | None = None
        self._ended = 0.0
        self._children: list[spawn.Child] = []
        self._pumps: list[threading.Thread] = []

    def run(self) -> int:
        """Return the sandbox's exit code."""
        # Before there is a child: a signal that arrives while it starts is passed on afterwards.
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._ask)
        timed_out = False
        try:
            code = self._run_child()
            while self._asked is None and self._is_continued(code):
                code = self._run_child()
        except subprocess.TimeoutExpired:
            # A child that is ending already has a reason: the run's deadline is also its steps'.
            timed_out = self._asked is None
            if timed_out:
                _write(self._environment[contract.END_REASON_FILE], self._overdue)
                _log(self._overdue)
            code = _end(self._children[-1], margin(self._timeout) * 0.7)
        self._ended = time.time()
        _drain(self._pumps)
        return self._settle(code, timed_out=timed_out)

    def _ask(self, signum: int, _frame: object) -> None:
        """Handle a signal to the sandbox: end the child."""
        if self._asked is None:
            self._asked = signum
            if signum == signal.SIGINT:
                _write(self._environment[contract.END_REASON_FILE], contract.PREEMPTED_REASON)
            for child in self._children[-1:]:
                _pass_on(signum, child)
            killer = threading.Timer(TERMINATE_GRACE_SECONDS, self._kill)
            killer.daemon = True
            killer.start()

    def _kill(self) -> None:
        for child in self._children[-1:]:
            child.kill()

    def _run_child(self) -> int:
        child, pumps = _start(self._environment)
        self._children.append(child)
        self._pumps += pumps
        if self._asked is not None:
            _pass_on(self._asked, child)
        return _wait(child, max(0.0, self._deadline - time.monotonic()), self._environment)

    def _is_continued(self, code: int) -> bool:
        """Return whether another child goes on with the run of one that has died."""
        module, environment = sys.argv[1], self._environment
        if module not in {contract.DRIVER_MODULE, contract.DYNAMIC_MODULE} or self._is_meant(code):
            return False
        environment[contract.TAKE_OVER] = "1"
        if module == contract.DRIVER_MODULE:
            # The steps run in sandboxes of their own, so another driver can take over.
            if len(self._children) == 1:
                _log(f"The driver ended with {code}; another one takes over.")
            return len(self._children) == 1
        # A step that ran in the process may be tried again; the function may go on without it.
        listed = Path(environment[contract.RUNNING_STEPS_FILE])
        try:
            steps = json.loads(_read(listed))
            listed.write_text("[]", encoding="utf-8")
        except (OSError, ValueError):
            # User code may have written it.
            return False
        if not steps:
            return False
        reason = self._described("step's process", code)
        _log(reason)
        environment[contract.DEATH] = json.dumps([reason, steps, last_lines.lines()])
        return True

    def _settle(self, code: int, *, timed_out: bool) -> int:
        """Have the child's end recorded, if it has not done so; return the sandbox's exit code."""
        if self._is_meant(code):
            if self._asked is not None and code == contract.EXIT_TERMINATED:
                code = _asked_end(self._asked)[1]
            return contract.EXIT_TIMED_OUT if timed_out else code
        if timed_out:
            left = notes.read("reason", self._children[-1].pid, self._environment)
            return self._record(left or self._overdue, contract.EXIT_TIMED_OUT)
        reason, result = self._death(code) if self._asked is None else _asked_end(self._asked)
        _log(reason)
        if self._asked is None and _subject() == "step" and self._written_exit_code() == code:
            # The driver asks ZenML again.
            return contract.EXIT_UNRECORDED
        return self._record(reason, result)

    def _death(self, code: int) -> tuple[str, int]:
        """Return why a child has died that nobody ended, and the sandbox's exit code."""
        in_step = contract.STEP in self._environment
        child = "step's process" if in_step else "driver" if _is_driver() else "runner"
        reason = self._described(child, code)
        if code != -signal.SIGKILL:
            return reason, contract.EXIT_FAILED
        if self._out_of_memory:
            return reason, contract.EXIT_OUT_OF_MEMORY if in_step else contract.EXIT_FAILED
        # User code may have done it: every process but a driver runs it, or is the parent of one.
        driver = sys.argv[1] == contract.DRIVER_MODULE
        return reason, contract.EXIT_KILLED if driver else contract.EXIT_FAILED

    def _described(self, child: str, code: int) -> str:
        pid, out_of_memory = self._children[-1].pid, self._out_of_memory
        return death.describe(child, pid, code, self._environment, out_of_memory=out_of_memory)

    @property
    def _out_of_memory(self) -> bool:
        return death.out_of_memory_kills() > self._earlier_kills

    def _record(self, reason: str, result: int) -> int:
        """Have the end of the child recorded in ZenML; return the sandbox's exit code."""
        environment = self._environment
        # The driver judges such an end of a step: it may execute the same record again. What a
        # preempted driver leaves is left to the next one.
        in_step = contract.STEP in environment
        preempted = result == contract.EXIT_INTERRUPTED and _is_driver()
        left_to_driver = preempted or (in_step and result in _FROM_OUTSIDE)
        if contract.RUN_ID in environment and not left_to_driver:
            if not all(broker.terminate_sandboxes() for broker in _brokers):
                _log("The step sandboxes may still run.")
            # Step sandboxes run until they are terminated.
            _finalize(reason, environment, time.time() if _brokers else self._ended)
        return result

    def _is_meant(self, code: int) -> bool:
        """Return whether the child has recorded its end; user code may have called `os._exit`."""
        return code in _RECORDED and self._written_exit_code() == code

    def _written_exit_code(self) -> int | None:
        """Return the exit code that the child meant to end with."""
        try:
            return int(_read(self._environment[contract.EXIT_CODE_FILE]))
        except (OSError, ValueError):
            return None


def _finalize(reason: str, environment: Mapping[str, str], ended: float) -> None:
    """Have an end (seconds since 1970) recorded in ZenML by a process of its own."""
    # With the manifest of a static run, it terminates the step sandboxes.
    manifest = [] if _has_broker() else sys.argv[2:]
    command = [sys.executable, "-m", FINALIZE_MODULE, reason, *manifest]
    environment = {**environment, contract.ENDED: str(ended)}
    lines = last_lines.encoded()
    if not any(fork.run(command, environment, lines) for fork in _forks):
        # In a session of its own: the sandbox's init forwards signals to this process group.
        subprocess.run(  # noqa: S603 (the command is ours)
            command,
            env=environment,
            input=lines,
            check=False,
            start_new_session=spawn.OWN_SESSION,
        )


def _start(environment: dict[str, str]) -> tuple[spawn.Child, list[threading.Thread]]:
    """Start the child; return it and the threads that pass its output on."""
    descriptors = _control(environment)
    new_broker = None
    if _has_broker():
        if not _brokers:
            link = BrokerLink(sys.argv[2])
            new_broker = _launch(link.arguments, {**environment, **_token}, link.inherited)
            link.started(new_broker[0])
            _brokers.append(link)
            _token.clear()
        descriptors = (*descriptors, _brokers[0].connect())
        environment[contract.BROKER] = str(descriptors[-1])
    # For `_finalize`; without the token, because it imports what user code may have changed.
    if not _forks and contract.RUN_ID in environment and (fork := spawn.ahead()) is not None:
        _forks.append(fork)
    child, key = _launch(sys.argv[1:], environment, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    # Only now: a process with threads is not forked.
    if new_broker is not None:
        _broker_pumps.extend(pump(*new_broker))
    usage_sampler.start(environment[contract.USAGE_FILE])
    if contract.STEP in environment:
        _listen(environment[contract.END_REASON_FILE])
    return child, pump(child, key)


def _listen(reason_file: str) -> None:
    """End the step, so that its code unwinds, when the driver says that the run's time is over."""

    def read() -> None:
        with contextlib.suppress(OSError, ValueError), os.fdopen(os.dup(0)) as lines:
            for line in lines:
                if line.startswith(contract.END):
                    _write(reason_file, line.removeprefix(contract.END).strip())
                    os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read, name="control", daemon=True).start()


def _wait(child: spawn.Child, seconds: float, environment: dict[str, str]) -> int:
    code = child.wait(seconds)
    usage_log.add_death(environment, child.pid, resource.getrusage(resource.RUSAGE_CHILDREN))
    return code


def _launch(
    arguments: list[str], environment: dict[str, str], descriptors: tuple[int, ...]
) -> tuple[spawn.Child, bytes]:
    """Start `python -m <arguments>`; return it and the key of its events."""
    key_pipe, key_sink = os.pipe()
    environment = {**environment, contract.EVENT_KEY: str(key_pipe)}
    command = [sys.executable, "-m", *arguments]
    child = spawn.start(command, environment, (*descriptors, key_pipe))
    # Made after a fork, whose memory would hold it for ever.
    key = os.urandom(KEY_BYTES)
    os.write(key_sink, key)
    os.close(key_pipe)
    os.close(key_sink)
    return child, key


def _has_broker() -> bool:
    """Return whether another process than the child creates sandboxes: the child runs user code."""
    return sys.argv[1] == contract.DYNAMIC_MODULE and len(sys.argv) > 2


def _pass_on(signum: int, child: spawn.Child) -> None:
    if signum == signal.SIGINT and _is_driver():
        # After SIGTERM it would end the steps too, which another driver can adopt.
        child.kill()
    else:
        child.terminate()


def _is_driver() -> bool:
    """Return whether the child drives step sandboxes; a dynamic run then has a manifest."""
    return sys.argv[1] == contract.DRIVER_MODULE or _has_broker()


def _subject() -> str:
    return "step" if contract.STEP in os.environ else "run"


def _control(environment: dict[str, str]) -> tuple[int, ...]:
    """Duplicate the standard input for the child, whose own one is empty; a step gets none."""
    if contract.STEP in environment:
        return ()
    with contextlib.suppress(OSError):
        environment[contract.CONTROL] = str(os.dup(0))
        return (int(environment[contract.CONTROL]),)
    return ()


def _drain(pumps: list[threading.Thread]) -> None:
    until = time.monotonic() + DRAIN_SECONDS
    for thread in pumps:
        thread.join(max(0.0, until - time.monotonic()))


def _end(child: spawn.Child, grace: float) -> int:
    """Send SIGTERM, and SIGKILL after `grace` seconds; return the exit code."""
    child.terminate()
    try:
        return child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _asked_end(signum: int) -> tuple[str, int]:
    """Return why a signal to the sandbox has ended it, and the sandbox's exit code."""
    if signum == signal.SIGINT:
        return contract.PREEMPTED_REASON, contract.EXIT_INTERRUPTED
    return contract.TERMINATED_REASON, contract.EXIT_TERMINATED


def _read(path: Path | str) -> str:
    """Read a small file, which user code may have replaced by anything.

    Raises:
        OSError, ValueError: It can't be read.
    """
    # A pipe would never end, and another file's content is not ours to pass on.
    with open_inside(Path(path).parent, Path(Path(path).name)) as file:
        return file.read(_LONGEST_FILE).decode()


def _write(path: str, text: str) -> None:
    """Write a file, unless the disk is full."""
    with contextlib.suppress(OSError):
        Path(path).write_text(text, encoding="utf-8")


def _log(text: str) -> None:
    sys.stderr.write(f"modalrun: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    write_end()
    # Pumps may still read a pipe that a grandchild holds open; nothing waits for them.
    os._exit(status)
