"""Keep the workers of a `pipeline` run: fork them when needed, use idle ones again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator

from modalrun.driver.lines.step_output import TaggedStream
from modalrun.driver.processes.tasks import Tasks
from modalrun.driver.workers.worker_process import WorkerDied, WorkerError, WorkerProcess


class WorkerPool:
    """The workers of a run: as many as are in use at the same time.

    Attributes:
        private: Descriptors that workers must not keep.
    """

    def __init__(self) -> None:
        self.private: list[int] = []
        self._out = TaggedStream(sys.stdout.buffer, 1)
        self._err = TaggedStream(sys.stderr.buffer, 2)
        self._idle: list[WorkerProcess] = []
        self._busy: list[WorkerProcess] = []
        self._retired: list[WorkerProcess] = []
        self._endings = Tasks()
        # The reader learns that steps share this sandbox.
        self._out.write(None, b"")
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def log(self, step: str | None, text: str) -> None:
        """Write one line to stderr, as a step's or as nobody's."""
        self._err.write(step, f"{text}\n".encode(errors="replace"))

    @contextlib.contextmanager
    def worker(self) -> Iterator[WorkerProcess]:
        """Use a worker for the block."""
        worker = self._idle.pop() if self._idle else self._fork()
        self._busy.append(worker)
        self._share()
        try:
            yield worker
        finally:
            self._busy.remove(worker)
            self._share()
            if worker.retired:
                worker.disconnect()
                self._retired.append(worker)
            elif worker.alive:
                self._idle.append(worker)

    def end_busy(self, grace: float) -> None:
        """Tell the workers that are in use to end; kill them after `grace` seconds."""
        for worker in self._busy:
            self._endings.start(worker.end(grace))

    async def clean_up(self) -> list[str]:
        """Let all idle workers call the cleanup hook; return what went wrong."""

        async def ask(worker: WorkerProcess) -> str:
            try:
                await worker.ask("cleanup")
            except (WorkerDied, WorkerError) as error:
                return str(error)
            return ""

        with contextlib.ExitStack() as used:
            workers = [used.enter_context(self.worker()) for _ in list(self._idle)]
            return list(filter(None, await asyncio.gather(*map(ask, workers))))

    def close(self) -> None:
        """Stop handling the ends of workers; they end with this process."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    @property
    def _all(self) -> list[WorkerProcess]:
        return [*self._idle, *self._busy, *self._retired]

    def _fork(self) -> WorkerProcess:
        others = [number for worker in self._all for number in worker.descriptors]
        return WorkerProcess((self._out, self._err), [*self.private, *others])

    def _reap(self) -> None:
        for worker in self._all:
            worker.reap()
        self._idle = [worker for worker in self._idle if worker.alive]

    def _share(self) -> None:
        self._out.shared = self._err.shared = len(self._busy) > 1
