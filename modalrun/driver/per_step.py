"""The driver: walks the graph of a `per_step` run, each step in a sandbox of its own.

`python -m modalrun.driver.per_step MANIFEST` runs under the supervisor in the run sandbox. It
starts the first steps before it has imported ZenML: the manifest holds all that it needs for that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from modalrun.driver import control
from modalrun.driver.coordinator import STOP_REASON, Coordinator
from modalrun.driver.process import buffer_lines, leave, supervisors_reason
from modalrun.driver.recorder import Records
from modalrun.driver.takeover import Takeover
from modalrun.run.contract import (
    EXIT_COMPLETED,
    EXIT_FAILED,
    EXIT_TERMINATED,
    EXIT_UNRECORDED,
    TAKE_OVER,
)
from modalrun.run.manifest import RunManifest
from modalrun.run.reporting import log_line
from modalrun.util import garbage_collection

STOP_CHECK_SECONDS = 5.0
"""How often ZenML is asked whether somebody wants the run to stop: it tells nobody by itself."""

FIRST_SECONDS = 2.0
"""How long ZenML is not imported while the first sandboxes are being created: both take turns in
one interpreter, and the sandboxes would come last."""


T = TypeVar("T")


def main() -> NoReturn:
    """Walk the graph of the manifest that the command line names, and leave with the outcome."""
    buffer_lines()
    code = EXIT_UNRECORDED
    try:
        manifest = RunManifest.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
        code = asyncio.run(drive(manifest))
    except BaseException:
        traceback.print_exc()
    leave(code)


async def drive(manifest: RunManifest) -> int:
    """Walk to the end, and settle the run's record; returns the exit code."""
    from modalrun.modal_api.step_sandboxes import StepSandboxes

    loop = asyncio.get_running_loop()
    records = Records(manifest.run_id, log_line)
    variables = {name: os.environ[name] for name in manifest.variables}
    fleet = StepSandboxes(manifest, variables, Path.cwd(), log_line)
    walk = Coordinator(manifest, fleet, records, log_line)
    loop.add_signal_handler(signal.SIGTERM, _give_up, walk)
    control.listen(lambda: _soon(loop, walk.stop, "the run was asked to stop"))
    with garbage_collection.paused():
        await fleet.open()
    taken = await _take_over(walk, records) if os.environ.get(TAKE_OVER) else None
    asking = [asyncio.create_task(_watch_for_stop(walk, records))]
    if walk.looks_ahead:
        asking.append(asyncio.create_task(_expect(walk, records)))
    await walk.run(taken)
    for task in asking:
        task.cancel()
    return await _settle(walk, records)


def _give_up(walk: Coordinator) -> None:
    """The supervisor wants the driver to end: at the run's timeout, or because it was told to."""
    reason = supervisors_reason()
    if reason is None:
        walk.give_up("the run sandbox was told to end")
    else:
        walk.give_up(f"{reason[:1].lower()}{reason[1:].rstrip('.')}", timed_out=True)


def _soon(loop: asyncio.AbstractEventLoop, action: Callable[[str], None], reason: str) -> None:
    """Call something in the loop, from another thread."""
    loop.call_soon_threadsafe(action, reason)


async def _take_over(walk: Coordinator, records: Records) -> Takeover:
    """What an earlier driver of this run has left behind."""
    members, states, stopped = await asyncio.gather(
        walk.fleet.running(),
        records.ask(lambda recorder: recorder.states()),
        records.ask(lambda recorder: recorder.stop_requested()),
    )
    if stopped:
        walk.stop(STOP_REASON)
    log_line(f"Taking over; step sandboxes that are running: {len(members)}.")
    return Takeover(members, states)


async def _watch_for_stop(walk: Coordinator, records: Records) -> None:
    said: set[str] = set()
    await walk.first_created(FIRST_SECONDS)
    begins = not os.environ.get(TAKE_OVER)
    if begins and await _answer(records.ask(lambda r: r.stop_requested()), said):
        # Nobody could end this sandbox when they stopped the run: it was not there yet.
        walk.give_up("the run was stopped before it began")
        return
    await _answer(records.ask(lambda recorder: recorder.set_running()), said)
    while True:
        await asyncio.sleep(STOP_CHECK_SECONDS)
        if await _answer(records.ask(lambda recorder: recorder.stop_requested()), said):
            walk.stop(STOP_REASON)
            return


async def _answer(asking: Awaitable[T], said: set[str]) -> T | None:
    """The answer; None where ZenML gives none, which is said once: the watch itself goes on."""
    try:
        return await asking
    except Exception as error:
        text = f"ZenML can't be asked about the run: {type(error).__name__}: {error}"
        if text not in said:
            log_line(text)
        said.add(text)
        return None


async def _expect(walk: Coordinator, records: Records) -> None:
    """Find out how long steps take; without that none is created early."""
    await walk.first_created(FIRST_SECONDS)
    try:
        walk.expect(await records.ask(lambda recorder: recorder.expected_seconds()))
    except Exception as error:
        log_line(f"No sandbox is created early: {type(error).__name__}: {error}")


async def _settle(walk: Coordinator, records: Records) -> int:
    """Leave nothing `running` in ZenML and no step sandbox behind."""
    if walk.gave_up:
        await walk.fleet.terminate_all()
    if walk.succeeded:
        return EXIT_COMPLETED
    if walk.failed and not walk.gave_up:
        reason = f"Steps failed: {', '.join(walk.failed)}."
    else:
        reason = supervisors_reason() or f"The run ended early: {walk.asked_to_stop}."
    stopped = bool(walk.asked_to_stop) and not walk.failed and not walk.gave_up
    await records.ask(lambda recorder: recorder.finalize(reason, stopped=stopped))
    return EXIT_TERMINATED if stopped or walk.gave_up else EXIT_FAILED


if __name__ == "__main__":
    main()
