"""Measure the first line and the throughput of `modalrun logs`.

    python benchmarks/logs.py [repetitions]

Uses a separate local Modal server and no ZenML: the run is a sandbox with a run's tags. The bound
for the first line is twice `import modal` plus one round trip; the measurements alternate, so that
other load affects all alike. The rates are compared with plain iteration of `sb.stdout`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from modalrun.localmodal import launcher
from modalrun.modal_api.client import Connection
from modalrun.modal_api.log_streams import OutputStreams
from modalrun.observe.log_stream import LogStream
from modalrun.run import events
from modalrun.run.events import LinesOf
from modalrun.run.log_lines import LogLine
from modalrun.run.tags import TAG_ROLE, TAG_RUN

LINES = 100_000
PLAIN_LINES = 10_000
SANDBOXES = 10
RUN = str(uuid4())


def first_line(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds from a process's start to its first output or its end."""
    begin = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - begin
        process.kill()
    return seconds


def rate(read: Callable[[], int]) -> float:
    """Return the lines per second."""
    begin = time.perf_counter()
    lines = read()
    return lines / (time.perf_counter() - begin)


def plain(modal: Any, sandbox_id: str) -> int:
    """Read a finished sandbox with the SDK alone."""
    return sum(1 for _ in modal.Sandbox.from_id(sandbox_id).stdout)


def ours(connection: Connection, sandbox_ids: list[str]) -> int:
    """Read finished sandboxes with the engine of `logs` and `submit`, as lines with their steps."""
    count = 0
    followers = [LogStream(OutputStreams(connection, RUN), box) for box in sandbox_ids]
    for follower in followers:
        for batch in follower:
            count += sum(isinstance(item, LogLine) for item in batch)
    return count


def show(what: str, values: list[float], unit: str) -> None:
    """Print the median and the extremes."""
    digits = 0 if min(values) > 100 else 2
    middle, low, high = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    print(f"{what:<58} {middle:>9} {unit} ({low} to {high})")


def main() -> None:
    """Print all figures."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODALRUN_LOCAL_STATE"] = str(Path(folder) / "state")
        os.environ["HOME"] = folder
        try:
            measure(repetitions)
        finally:
            launcher.stop()


def measure(repetitions: int) -> None:
    """Measure everything while the server runs."""
    connection = Connection("local")
    import modal

    app = modal.App.lookup("benchmark", create_if_missing=True)
    image = modal.Image.debian_slim()

    def create(*command: str, gpu: str | None = None, **tags: str) -> Any:
        return modal.Sandbox.create(
            *command, app=app, image=image, gpu=gpu, timeout=3600, tags={TAG_RUN: RUN, **tags}
        )

    script = f"print({events.line(LinesOf('one'))!r}, end=''); print('first', flush=True); input()"
    create(sys.executable, "-c", script, **{TAG_ROLE: "run"})
    environment = dict(os.environ)
    follow = [sys.executable, "-m", "modalrun", "logs", "--follow", RUN]
    importing = [sys.executable, "-c", "import modal"]
    shown, imports, trips = [], [], []
    for _ in range(repetitions):
        imports.append(first_line(importing, environment))
        shown.append(first_line(follow, environment))
        begin = time.perf_counter()
        connection.client.hello()
        trips.append(time.perf_counter() - begin)
    show("modalrun logs --follow RUN, to its first line", shown, "s")
    show("import modal", imports, "s")
    bound = 2 * statistics.median(imports) + statistics.median(trips)
    print(f"{'2 x import modal + one round trip':<58} {bound:9.2f} s")

    for name, gpu in (("V2", None), ("V1", "T4")):
        boxes = [create("seq", "1", str(LINES), gpu=gpu) for _ in range(SANDBOXES)]
        few = create("seq", "1", str(PLAIN_LINES), gpu=gpu)
        for box in (*boxes, few):
            box.wait()
        ids = [box.object_id for box in boxes]
        throughput(modal, connection, name, ids, few.object_id, repetitions=repetitions)


def throughput(
    modal: Any, connection: Connection, name: str, ids: list[str], few: str, *, repetitions: int
) -> None:
    """Print the lines per second; `few` is a sandbox that the SDK alone can read in time."""
    measured: list[tuple[str, int, Callable[[], int]]] = [
        (f"for line in sb.stdout, {PLAIN_LINES:,} lines", 3, lambda: plain(modal, few)),
        (f"modalrun's engine, {LINES:,} lines", repetitions, lambda: ours(connection, ids[:1])),
        (f"{len(ids)} sandboxes at once through it", 2, lambda: ours(connection, ids)),
    ]
    for what, times, read in measured:
        show(f"{name}: {what}", [rate(read) for _ in range(times)], "lines/s")


if __name__ == "__main__":
    main()
