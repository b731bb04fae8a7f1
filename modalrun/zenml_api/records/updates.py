"""Store metadata of runs and record their ends. Does not import ZenML."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modalrun.errors import NotFoundError
from modalrun.run.contract import NOT_BEGUN
from modalrun.run.failure import RUN_REASON
from modalrun.run.metadata import PREFIX
from modalrun.run.records import FINISHED
from modalrun.util.text import cut
from modalrun.zenml_api.errors import NotAllowedError, only_logged, translated
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.queries import UNDECODABLE, child_runs, get_run, step_runs
from modalrun.zenml_api.records.responses import STOPPED, Link, StoredRun, StoredStep
from modalrun.zenml_api.records.step_records import end_step, fail_step

_URL = "orchestrator_url"
"""The metadata that ZenML's dashboard shows as a link (`zenml.constants`, 0.98.0)."""

HEARTBEAT_SECONDS = 15.0
"""How often the process of a step tells ZenML that it runs (`steps/heartbeat.py:43`, 0.98.0)."""


def publish_metadata(run_id: str, metadata: Mapping[str, Any]) -> None:
    """Store metadata with a run."""
    with translated():
        stores.current().add_metadata("pipeline_run", run_id, metadata)


def record_metadata(run_id: str, metadata: Mapping[str, Any]) -> bool:
    """Store metadata of the run sandbox with the run; a failure to do so is only logged.

    Returns:
        Whether the run was stopped before its sandbox was known.
    """
    stored = dict(metadata)
    if url := stored.get(f"{PREFIX}sandbox_url"):
        stored[_URL] = Link(url)
    stopped = False
    with only_logged("The run's metadata was not stored"):
        publish_metadata(run_id, stored)
        # ZenML ignores it if the run has begun or ended (`pipeline_run_schemas.py:966`).
        run = stores.current().update_run(run_id, status="provisioning")
        stopped = run.status in STOPPED
    return stopped  # noqa: RET504 (the block may end early)


def finalize_run(
    run_id: str,
    reason: str,
    *,
    stopped: bool = False,
    lines: Mapping[str, Sequence[str]] | Sequence[str] = (),
    used: Sequence[str] = (),
    ended: float | None = None,
    unseen: bool = False,
    left: str | None = None,
) -> bool:
    """Record the end of a run whose process has ended.

    The run and its unfinished steps become FAILED, or STOPPED if the run was stopped. Finished
    records are not changed, but a failed run without a reason gets one. A paused run stays paused
    unless it is stopped. A step that waits for its retry gets none and keeps the reason of its
    failure. The runs of a dynamic pipeline's child pipelines end with it.

    Args:
        reason: The reason, in a sentence; stored with each step and the run.
        lines: What steps have printed last, by their names; or what the only unfinished one has.
            A step with a name that has no record yet gets a failed one if the run fails.
        used: What they have used, as the killed sandbox has told it.
        ended: When they have ended (seconds since 1970); None for now.
        unseen: Whether nobody knows when that was. A step that has given heartbeats then counts
            as ended `HEARTBEAT_SECONDS` after the last one, any other one as ended now.
        left: Why unfinished steps become STOPPED instead, if the run's failure is not theirs.

    Returns:
        Whether any record was unfinished.
    """
    changed = False
    with translated():
        status = "stopped" if stopped else "failed"
        run = get_run(run_id)
        recorded = run.zenml_status
        if recorded == "paused" and not stopped:
            return False
        _require_deployment(run)
        if recorded in STOPPED:
            status = "stopped"
        else:
            if status == "failed" and isinstance(lines, Mapping):
                # Before the run ends: ZenML creates none afterwards.
                _fail_unrecorded(run_id, reason, lines)
            # Before the steps end, so that ZenML creates no more of them, and no stopped step
            # makes a run stopped that has failed.
            changed = _end_run(run, status, reason)
        for child in child_runs(run, project=run.project).values():
            if child.finished or child.parent != run.id:
                continue
            stop = status == "stopped"
            also = finalize_run(
                child.id, reason, stopped=stop, ended=ended, unseen=unseen, left=left
            )
            changed = also or changed
        steps = step_runs(run_id)
        unfinished = [step for step in steps if not step.finished]
        if not isinstance(lines, Mapping):
            lines = {step.name: lines for step in unfinished} if len(unfinished) == 1 else {}
        now = time.time() if ended is None else ended
        ends = {step.id: now if step.ended is None else step.ended for step in steps}
        signs = {step.id: sign for step in unfinished if (sign := _last_sign(step, now))}
        if unseen:
            ends |= signs
        for step in unfinished:
            # ZenML sets a failed step with retries left to RETRYING (`sql_zen_store.py:13129`).
            # No retry follows here, and only STOPPED is final then.
            # Somebody else may end it at the same time, or end the run: ZenML then refuses.
            with _recorded(run):
                for final in dict.fromkeys(("stopped" if left else status, "stopped")):
                    last, end = lines.get(step.name, ()), ends[step.id]
                    why = None if step.status == "retrying" else left or reason
                    if end_step(step.id, final, why, last, used=used, ended=end).finished:
                        break
            changed = True
        # What the run sandbox did after its last step leaves no sign.
        lost = unseen and 0 < len(signs) == len(unfinished) and run.metadata is not None
        if not run.finished and (lost or (status == "failed" and not run.dynamic)):
            known = f"{PREFIX}{'lost_at' if lost else 'ended'}"
            with only_logged("The end of the run's last step was not stored"):
                publish_metadata(run_id, {known: max(ends.values(), default=now)})
        return _end_run(get_run(run_id), status, reason) or changed


def _fail_unrecorded(run_id: str, reason: str, lines: Mapping[str, Sequence[str]]) -> None:
    """Record the failure of those steps that had begun to start and have no record."""
    recorded = {step.name for step in step_runs(run_id)} if lines else set()
    for name in lines.keys() - recorded:
        fail_step(run_id, name, f"{reason} {NOT_BEGUN}", final=True, lines=lines[name])


def _last_sign(step: StoredStep, now: float) -> float | None:
    """Return the end of an unfinished step of which nobody knows it; None without a heartbeat.

    One that waits for its next attempt has an end.
    """
    if step.ended is not None or step.heartbeat is None:
        return step.ended
    return min(now, step.heartbeat.timestamp() + HEARTBEAT_SECONDS)


def mark_stopping(run_id: str, reason: str) -> bool:
    """Record that the run is stopping; ZenML sets it to STOPPED if no step is unfinished.

    Running steps end at their next heartbeat; new ones are refused.

    Returns:
        Whether the run was still unfinished.
    """
    with translated():
        run = get_run(run_id)
        if run.zenml_status in FINISHED:
            return False
        _require_deployment(run)
        recorded = False
        with _recorded(run):
            _update_run(run, status="stopping", status_reason=cut(reason, RUN_REASON))
            recorded = True
        return recorded  # noqa: RET504 (the block may end early)


def pause_again(run_id: str) -> None:
    """Record a run as paused again that has begun to continue; its sandbox has ended.

    ZenML does so with a run that it can't resume (`cli/pipeline.py:1354`, 0.98.0).
    """
    with translated():
        run = get_run(run_id)
        if run.zenml_status == "running":
            # It may have ended meanwhile.
            with _recorded(run):
                _update_run(run, status="paused", status_reason="Waiting for manual resume.")


def _update_run(run: StoredRun, **changes: Any) -> None:
    """Change a run; with the change stored, ZenML may be unable to decode metadata to return."""
    try:
        stores.current().update_run(run.id, **changes)
    except UNDECODABLE:
        if run.values is not None:
            raise


def _end_run(run: StoredRun, status: str, reason: str) -> bool:
    """Give a run a final status; return whether it had none."""
    if run.zenml_status in FINISHED:
        unexplained = run.zenml_status == "failed" and not run.reason
        if unexplained and run.deployment is not None:
            # ZenML ends a run with its failed step, or function, and gives no reason.
            with _recorded(run):
                _update_run(run, status="failed", status_reason=cut(reason, RUN_REASON))
        return run.failing
    # ZenML computes a run's status from its steps. Without a stopped step, only STOPPING leads
    # to STOPPED (`pipeline_run_schemas.py:1310`, 0.98.0).
    first = "stopping" if status == "stopped" else status
    # The end of the last step may have ended the run meanwhile.
    with _recorded(run):
        _update_run(run, status=first, status_reason=cut(reason, RUN_REASON))
        if first == "stopping" and run.dynamic:
            # ZenML computes no status for the run of a dynamic pipeline.
            _update_run(run, status="stopped")
    return True


@contextlib.contextmanager
def _recorded(run: StoredRun) -> Iterator[None]:
    """Ignore that a run or a step has ended meanwhile.

    Once ZenML has stored the end of a run whose stack was deleted, it fails at an assertion about
    the stack (`sql_zen_store.py:13539`, 0.98.0).
    """
    try:
        yield
    except NotAllowedError:
        pass
    except Exception:
        if run.deployment is None or run.stack is not None:
            raise


def _require_deployment(run: StoredRun) -> None:
    """Refuse a run that ZenML can't update (`pipeline_run_schemas.py:978`, an assertion)."""
    if run.deployment is None and run.zenml_status not in FINISHED:
        raise NotFoundError(
            f"ZenML can't record the end of the run {run.id}: its deployment was deleted.",
            hint=f"'zenml pipeline runs delete {run.id}' removes its record.",
        )
