"""Complete the sandbox spec of a step: its name, its tags and its process's variables. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from modalrun.driver.ahead import longest_wait
from modalrun.run.contract import RUN_ID, STEP, STEP_METADATA, STEP_RUN, WAIT
from modalrun.run.manifest import RunManifest
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import MAX_NAME, TAG_ATTEMPT, TAG_EARLY, TAG_RECORD, TAG_RUN, fit


def spec_of_attempt(
    manifest: RunManifest,
    step: str,
    sandbox: SandboxSpec,
    *,
    attempt: int,
    retries: int,
    record: str | None = None,
    early: bool = False,
    dynamic_run: str | None = None,
) -> SandboxSpec:
    """Return the spec of the sandbox for one attempt of a step.

    Args:
        manifest: The run.
        step: The step's name.
        sandbox: Its sandbox as planned.
        attempt: The number of the step's sandbox, from 1.
        retries: How many of those before it were lost through no fault of the step.
        record: The id of the step's record in ZenML that it executes; None for a new one.
        early: Whether it is created before the step's turn, and waits.
        dynamic_run: For a step of a dynamic pipeline, the run that it belongs to: the manifest's,
            or that of a child pipeline.
    """
    # The names of a child pipeline's steps are its own.
    unique = f"{dynamic_run} {step}" if dynamic_run else step
    digest = hashlib.sha256(unique.encode()).hexdigest()[:8]
    env = {
        **sandbox.env,
        RUN_ID: dynamic_run or manifest.run_id,
        STEP: step,
        STEP_METADATA: _metadata(sandbox, retries),
    }
    if record is not None:
        env[STEP_RUN] = record
    if early:
        env[WAIT] = str(longest_wait(sandbox.timeout))
    return replace(
        sandbox,
        name=fit(f"modalrun-{manifest.run_id}-{digest}-{attempt}", MAX_NAME),
        tags={
            **sandbox.tags,
            TAG_RUN: manifest.run_id,
            TAG_ATTEMPT: str(attempt),
            **({TAG_EARLY: "1"} if early else {}),
            **({TAG_RECORD: record} if dynamic_run and record else {}),
        },
        env=env,
    )


def _metadata(sandbox: SandboxSpec, retries: int) -> str:
    """Return the metadata of a sandbox that its step stores, which adds the id and the GPU."""
    known = {
        "cpu": sandbox.resources.cpu,
        "memory": sandbox.resources.memory,
        "regions": ",".join(sandbox.regions) or None,
        "infrastructure_retries": retries or None,
    }
    return json.dumps({name: value for name, value in known.items() if value is not None})
