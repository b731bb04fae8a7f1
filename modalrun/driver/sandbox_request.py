"""The sandbox that a step gets: its name, its tags and what its process is told. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from modalrun.driver.ahead import longest_wait
from modalrun.run.contract import RUN_ID, STEP, STEP_METADATA, STEP_RUN, WAIT
from modalrun.run.manifest import RunManifest, SandboxOrder
from modalrun.run.tags import MAX_NAME, MAX_TAG, TAG_PIPELINE, TAG_ROLE, TAG_RUN, TAG_STEP, fit

if TYPE_CHECKING:
    from modalrun.modal_api.step_sandboxes import SandboxRequest


def build_request(
    order: RunManifest,
    step: str,
    sandbox: SandboxOrder,
    *,
    attempt: int,
    retries: int,
    record: str | None = None,
    early: bool = False,
    dynamic_run: str | None = None,
) -> SandboxRequest:
    """What to create for a step.

    Args:
        order: The run.
        step: The step's name.
        sandbox: What its sandbox is like.
        attempt: Which sandbox of the step it is, from 1.
        retries: How many of those before it were lost through no fault of the step.
        record: The id of the step's record in ZenML that it executes; None for one of its own.
        early: Whether it is created before the step's turn, and waits.
        dynamic_run: For a step of a dynamic pipeline, the run that it belongs to: the order's, or
            that of a child pipeline.
    """
    from modalrun.modal_api.step_sandboxes import SandboxRequest
    from modalrun.run.tags import TAG_ATTEMPT, TAG_EARLY, TAG_RECORD

    # The names of a child pipeline's steps are its own.
    unique = f"{dynamic_run} {step}" if dynamic_run else step
    digest = hashlib.sha256(unique.encode()).hexdigest()[:8]
    environment = {RUN_ID: dynamic_run or order.run_id, STEP: step}
    if record is not None:
        environment[STEP_RUN] = record
    if early:
        environment[WAIT] = str(longest_wait(sandbox.timeout))
    return SandboxRequest(
        sandbox=sandbox,
        name=fit(f"modalrun-{order.run_id}-{digest}-{attempt}", MAX_NAME),
        tags={
            TAG_RUN: order.run_id,
            TAG_ROLE: "step",
            TAG_STEP: fit(step, MAX_TAG),
            TAG_PIPELINE: fit(order.pipeline, MAX_TAG),
            TAG_ATTEMPT: str(attempt),
            **({TAG_EARLY: "1"} if early else {}),
            **({TAG_RECORD: record} if dynamic_run and record else {}),
        },
        env=lambda gpu: {**environment, STEP_METADATA: _facts(sandbox, gpu, retries)},
    )


def _facts(sandbox: SandboxOrder, gpu: str | None, retries: int) -> str:
    """What the step itself stores of its sandbox, which it learns the id of there."""
    facts = {
        "gpu": gpu,
        "cpu": sandbox.cpu,
        "memory": sandbox.memory,
        "regions": ",".join(sandbox.regions) or None,
        "infrastructure_retries": retries or None,
    }
    return json.dumps({name: value for name, value in facts.items() if value is not None})
