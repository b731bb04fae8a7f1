"""Run one step after the other in a step sandbox that is kept warm, each in a fork.

`python -m modalrun.driver.step_worker` is the first process of such a sandbox. It imports ZenML,
loads the run beside the first step, and runs no user code. The sandbox's environment holds the
order for its first step; the driver writes the next ones to the standard input
(`driver/graph/warm_sandboxes.py`). For each it forks a supervisor (`driver/supervisor.py`), which
forks the step's process and treats it as in a sandbox of its own. What the step leaves behind is
ended and deleted; then the standard output tells the driver how it ended.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import psutil

from modalrun.driver import supervisor
from modalrun.driver.processes import privileges, spawn
from modalrun.driver.processes.child_environment import beside
from modalrun.driver.processes.privileges import without_source
from modalrun.driver.processes.process import die_with_parent
from modalrun.run import contract, events
from modalrun.run.events import Event, LinesOf, OrderEnd
from modalrun.run.reporting import log_line
from modalrun.run.step_order import StepOrder, label_of
from modalrun.util import garbage_collection

ORPHAN_SECONDS = 60.0
"""How much longer than agreed it waits for an order: its driver is gone then."""

_STEP_MODULE = "modalrun.driver.step"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> NoReturn:
    """Run the steps that the driver orders, until no order comes any more."""
    os.environ[contract.STARTED] = str(time.time())
    privileges.drop_tracing()
    privileges.hide_process()
    privileges.adopt_orphans()
    first = StepOrder.from_json(os.environ.pop(contract.ORDER))
    seconds = float(os.environ.pop(contract.KEEP_WARM))
    worker = Worker(dict(os.environ))
    for number in _SIGNALS:
        signal.signal(number, worker.pass_on)
    with garbage_collection.paused(), without_source():
        _import()
    for order in itertools.chain((first,), _orders(seconds + ORPHAN_SECONDS)):
        worker.serve(order)
    _leave(contract.EXIT_COMPLETED)


class Worker:
    """Run steps, one at a time."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Prepare to run steps that have these variables in common."""
        self._environment = environment
        self._source = Path.cwd()
        self._child: int | None = None
        self._terminated = False
        self._served: set[str] = set()
        self._loads = sys.platform == "linux"
        # The steps that it has loaded for later forks.
        self._loaded: Collection[str] = ()

    def pass_on(self, number: int, _frame: object) -> None:
        """Handle a signal: end the step that runs, and then this process."""
        self._terminated = True
        if self._child is None:
            interrupted = number == signal.SIGINT
            _leave(contract.EXIT_INTERRUPTED if interrupted else contract.EXIT_TERMINATED)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, number)

    def serve(self, order: StepOrder) -> None:
        """Run a step, and report its end; do nothing for an order that came before."""
        if order.secret in self._served:
            return
        self._served.add(order.secret)
        lines = LinesOf(label_of(order.env), order.attempt)
        _write(1, lines)
        _write(2, lines)
        with contextlib.ExitStack() as folders:
            try:
                code = self._run(order, folders)
            except OSError as error:
                # The first one of many where the tree could not be copied.
                problem = error.args[0][0][2] if isinstance(error, shutil.Error) else error
                log_line(f"The step can't start: {problem}.")
                code = contract.EXIT_UNPREPARED
            _end_orphans()
            if self._terminated:
                _leave(code)
            _write(1, OrderEnd(order.secret, code))

    def _run(self, order: StepOrder, folders: contextlib.ExitStack) -> int:
        """Run a step in folders of its own, which the exit of `folders` deletes."""
        own = folders.enter_context(_folder(contract.OWN_FOLDER, beside(self._source)))
        source = shutil.copytree(self._source, own / self._source.name, symlinks=True)
        # Short, and not beside: the path of a socket has 108 bytes at most.
        temporary = folders.enter_context(_folder("step-", None))
        now = {contract.CREATED: str(time.time()), contract.STARTED: str(time.time())}
        environment = {**now, **self._environment, **order.env, "TMPDIR": str(temporary)}
        # The timeout of a later step does not count from the creation of the sandbox.
        self._environment.pop(contract.CREATED, None)
        self._environment.pop(contract.STARTED, None)
        # A signal that comes in between must find the child, or be found by it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._child = _start(environment, source, self._source)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if self._loads and order.env[contract.STEP] not in self._loaded:
            self._load_ahead(order.env, self._child)
        code = self._wait(self._child, float(order.env[contract.TIMEOUT]))
        self._child = None
        return code

    def _wait(self, child: int, seconds: float) -> int:
        """Wait for the end of a step's supervisor, and kill one that outlives the step's timeout.

        Modal does so where the step has a sandbox of its own.
        """
        late = False

        def kill(_number: int, _frame: object) -> None:
            nonlocal late
            late = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

        signal.signal(signal.SIGALRM, kill)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            _, status = os.waitpid(child, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        code = os.waitstatus_to_exitcode(status)
        if late:
            return contract.EXIT_TIMED_OUT
        return code if code >= 0 else 128 - code

    def _load_ahead(self, order: Mapping[str, str], child: int) -> None:
        """Open ZenML's store and load the run beside a step, for the forks of the next ones.

        With the end of the step it is given up, until the next one: ZenML may be in trouble.
        The step loads it itself. Components of the stack that are the user's own code are not
        found, and nothing is loaded then.
        """
        own = tempfile.mkdtemp(prefix=contract.OWN_FOLDER, dir=beside(self._source))
        os.environ.update(ZENML_CONFIG_PATH=own, ZENML_CUSTOM_SOURCE_ROOT=own)
        with contextlib.suppress(_StepEnded):
            with contextlib.suppress(Exception), _until_end_of(child), without_source():
                from modalrun.zenml_api.execution import steps

                self._loaded = steps.load_ahead(order[contract.RUN_ID], order[contract.STEP])
            self._loads = order[contract.STEP] in self._loaded
        shutil.rmtree(own, ignore_errors=True)


class _StepEnded(BaseException):
    """The process of a step has ended. No Exception, so that nothing below retries."""


@contextlib.contextmanager
def _until_end_of(child: int) -> Iterator[None]:
    """Raise `_StepEnded` in the block once a child has ended."""

    armed = [True]

    def look(*_: object) -> None:
        if armed and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            # Once, and again only if the block goes on: Python ignores what is raised in a
            # callback, and an import has some.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 1)
            raise _StepEnded

    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, look)
    try:
        look()
        yield
    finally:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)


def _start(environment: Mapping[str, str], source: Path, shared: Path) -> int:
    """Start the supervisor of a step; return its process id."""
    # A fork inherits the locks that other threads hold, and nothing would release them.
    if sys.platform != "linux" or threading.active_count() > 1:
        command = [sys.executable, "-m", "modalrun.driver.supervisor", _STEP_MODULE]
        return subprocess.Popen(  # noqa: S603 (the command is ours)
            command,
            env=dict(environment),
            cwd=source,
            stdin=subprocess.DEVNULL,
            start_new_session=spawn.OWN_SESSION,
        ).pid
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _become_supervisor(environment, source, shared)
            status = supervisor.main()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return pid


def _become_supervisor(environment: Mapping[str, str], source: Path, shared: Path) -> None:
    """Turn a fork into the first process of a sandbox that is the step's own."""
    os.setsid()
    die_with_parent()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.chdir(source)
    for index, path in enumerate(sys.path):
        if not path or Path(path).is_relative_to(shared):
            sys.path[index] = str(source / Path(path or shared).relative_to(shared))
    importlib.invalidate_caches()
    _set_environment(environment)
    sys.argv = ["supervisor", _STEP_MODULE]
    setattr(sys, spawn.MARK, _Imported())


class _Imported:
    """This process, which has imported what a step needs (see `spawn.start`)."""

    def suits(self, command: Sequence[str], _env: Mapping[str, str]) -> bool:
        """Return whether a fork can become the command."""
        return command[2] in {_STEP_MODULE, supervisor.FINALIZE_MODULE}

    def become(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Turn a fork of the supervisor into the step's process."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no objects for what is closed.
            with contextlib.suppress(OSError):
                if int(name) > 2 and not os.get_inheritable(int(name)):
                    os.close(int(name))
        _set_environment(env)
        sys.argv = list(command[2:])
        code = importlib.import_module(command[2]).main()
        sys.stdout.flush()
        os._exit(code)


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None


def _orders(patience: float) -> Iterator[StepOrder]:
    """Yield the orders from the standard input, until none comes for a time."""
    pending = b""
    until = time.monotonic() + patience
    while (left := until - time.monotonic()) > 0:
        if not select.select([0], [], [], left)[0] or not (chunk := os.read(0, 65_536)):
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield StepOrder.from_json(line)
            until = time.monotonic() + patience


def _import() -> None:
    """Import what a step needs before the code of its user."""
    from modalrun.driver import finalize, step  # noqa: F401
    from modalrun.run import metadata, values
    from modalrun.zenml_api.execution import single_step

    single_step.import_ahead()
    # Else each fork makes it anew.
    values.adapter(metadata.StepMetadata)


def _end_orphans() -> None:
    """End the processes that a step has left, and wait for them."""
    with contextlib.suppress(ChildProcessError, psutil.Error):
        while True:
            # It raises when there is none, as nearly always; a look at all processes takes longer.
            os.waitpid(-1, os.WNOHANG)
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
            # Their own children become this process's (`adopt_orphans`).
            os.waitpid(-1, 0)


@contextlib.contextmanager
def _folder(prefix: str, where: Path | None) -> Iterator[Path]:
    """Create a folder, and delete it as far as possible."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(descriptor: int, event: Event) -> None:
    stream = {1: sys.stdout, 2: sys.stderr}[descriptor]
    stream.write(events.line(event))
    stream.flush()


def _leave(code: int) -> NoReturn:
    # Nobody reads what is not flushed yet, and imported modules have nothing to tear down.
    os._exit(code)


if __name__ == "__main__":
    main()
