"""Drive a static `per_step` run: each step in a sandbox of its own.

`python -m modalrun.driver.per_step MANIFEST` runs under the supervisor in the run sandbox. It
starts the first steps before it imports ZenML: the manifest has all that this takes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable
from pathlib import Path
from typing import NoReturn, TypeVar

from modalrun.driver.graph.coordinator import Coordinator
from modalrun.driver.graph.recorder import AsyncRecorder
from modalrun.driver.graph.takeover import Takeover
from modalrun.driver.graph.warm_sandboxes import WarmSandboxes
from modalrun.driver.processes import control, privileges
from modalrun.driver.processes.process import (
    buffer_lines,
    leave,
    supervisors_reason,
    termination_clause,
)
from modalrun.errors import ModalrunError, NoRunError
from modalrun.run import contract, failure, notes
from modalrun.run.manifest import RunManifest
from modalrun.run.records import NOT_RUN, StepRecord
from modalrun.run.reporting import log_line, prove_events
from modalrun.run.sandbox_names import sandbox_names
from modalrun.util import garbage_collection

STOP_CHECK_SECONDS = 5.0
"""Seconds between two checks whether the run was stopped in ZenML, which notifies nobody."""

FIRST_SECONDS = 2.0
"""Seconds for which ZenML's import waits for the first sandboxes, which it would slow down."""


T = TypeVar("T")


def main() -> NoReturn:
    """Drive the run whose manifest the command line names, and exit with its outcome."""
    buffer_lines()
    prove_events()
    privileges.hide_process()
    code = contract.EXIT_UNRECORDED
    try:
        manifest = RunManifest.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
        code = asyncio.run(drive(manifest))
    except ModalrunError as error:
        log_line(error.message)
        notes.leave("reason", error.message)
    except BaseException:
        traceback.print_exc()
    leave(code)


async def drive(manifest: RunManifest) -> int:
    """Run all steps, and settle the run's record; return the exit code."""
    from modalrun.modal_api.sandboxes.step_sandboxes import StepSandboxes

    loop = asyncio.get_running_loop()
    recorder = AsyncRecorder(manifest.run_id)
    sandboxes = WarmSandboxes(manifest, StepSandboxes(manifest))
    coordinator = Coordinator(manifest, sandboxes, recorder)
    loop.add_signal_handler(signal.SIGTERM, _give_up, coordinator)
    control.listen(lambda: loop.call_soon_threadsafe(coordinator.stop, contract.STOP_CLAUSE))
    with garbage_collection.paused():
        await sandboxes.open()
    taken = None
    if os.environ.get(contract.TAKE_OVER):
        taken = await _take_over(manifest, coordinator, recorder)
        coordinator.waits.store()
    elif manifest.ahead:
        taken = Takeover(await sandboxes.ahead(), {})
    watching = asyncio.create_task(_watch_for_stop(coordinator, recorder))
    await coordinator.run(taken)
    watching.cancel()
    return await _settle(coordinator, recorder)


def _give_up(coordinator: Coordinator) -> None:
    """End the run because the supervisor ends the driver: at the run's timeout, or on SIGTERM."""
    coordinator.give_up(termination_clause(), timed_out=supervisors_reason() is not None)


async def _take_over(
    manifest: RunManifest, coordinator: Coordinator, recorder: AsyncRecorder
) -> Takeover:
    """Find what an earlier driver of this run has left."""
    # Before the records: a sandbox that has ended by then has recorded its step's end.
    sandboxes = await coordinator.sandboxes.running()
    records, stopped = await asyncio.gather(
        recorder.call(lambda recorder: recorder.states()),
        recorder.call(lambda recorder: recorder.stop_requested()),
    )
    if stopped:
        coordinator.stop(contract.STOP_CLAUSE)
    # Modal's list may lag, and a step that runs must not be started again.
    steps = [records.get(s.name, StepRecord(s.name, NOT_RUN)) for s in manifest.plan.steps]
    found = {sandbox.id: sandbox for sandbox in sandboxes}
    for sandbox in await coordinator.sandboxes.running(sandbox_names(manifest.run_id, steps)):
        found.setdefault(sandbox.id, sandbox)
    sandboxes = list(found.values())
    log_line(f"This driver takes over; running step sandboxes: {len(sandboxes)}.")
    return Takeover(sandboxes, records)


async def _watch_for_stop(coordinator: Coordinator, recorder: AsyncRecorder) -> None:
    """Record that the run has begun, and stop it when ZenML is asked to, or has it no longer."""
    try:
        await _watch(coordinator, recorder)
    except NoRunError:
        coordinator.stop(contract.DELETED_CLAUSE)


async def _watch(coordinator: Coordinator, recorder: AsyncRecorder) -> None:
    logged: set[str] = set()
    await coordinator.first_created(FIRST_SECONDS)
    new = not os.environ.get(contract.TAKE_OVER)
    if new and await _answer(recorder.call(lambda recorder: recorder.withdrawn()), logged):
        # The run was over before this sandbox existed, so nothing has terminated it.
        coordinator.give_up("the run was over before it began")
        return
    await _answer(recorder.call(lambda recorder: recorder.set_running()), logged)
    while True:
        await asyncio.sleep(STOP_CHECK_SECONDS)
        if await _answer(recorder.call(lambda recorder: recorder.stop_requested()), logged):
            coordinator.stop(contract.STOP_CLAUSE)
            return


async def _answer(call: Awaitable[T], logged: set[str]) -> T | None:
    """Return ZenML's answer; None if the call fails, which is logged once per error."""
    try:
        return await call
    except NoRunError:
        raise
    except Exception as error:
        text = f"ZenML can't be asked about the run: {type(error).__name__}: {error}"
        if text not in logged:
            log_line(text)
        logged.add(text)
        return None


async def _settle(coordinator: Coordinator, recorder: AsyncRecorder) -> int:
    """Leave no step sandbox and no `running` record behind; return the exit code."""
    early_end, failed = coordinator.early_end, coordinator.failed
    if early_end.gave_up:
        await coordinator.sandboxes.terminate_all()
    if coordinator.succeeded:
        return contract.EXIT_COMPLETED
    stopped = early_end.requested and not failed and not early_end.gave_up
    if failed and not early_end.gave_up:
        reason = failure.of_steps(failed)
    elif stopped:
        reason = contract.STOP_REASON
    else:
        reason = supervisors_reason() or f"The run ended early: {early_end.reason}."
        if early_end.timed_out:
            # The run's timeout goes on while its steps wait.
            reason = f"{reason} {coordinator.waits.summary()}".rstrip()
    try:
        await recorder.call(
            lambda recorder: recorder.finalize(reason, stopped=stopped, lines=early_end.lines)
        )
    except NoRunError:
        # Another driver could record nothing, either.
        return contract.EXIT_TERMINATED
    return contract.EXIT_TERMINATED if stopped or early_end.gave_up else contract.EXIT_FAILED


if __name__ == "__main__":
    main()
