"""Record a run's new sandbox in ZenML, so that other processes and machines find it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modalrun.errors import ModalrunError
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.modal_api.sandboxes.termination import SandboxGroup
from modalrun.run.capacity_wait import CapacityWait
from modalrun.run.metadata import RunMetadata, to_metadata, waiting_metadata
from modalrun.run.run_plan import RunPlan
from modalrun.submit.source.git_files import commit_of
from modalrun.util import timeline
from modalrun.zenml_api.gateway import ZenMLGateway


def record_sandbox(
    zenml: ZenMLGateway,
    run_id: str,
    plan: RunPlan,
    sandbox: RunningSandbox,
    *,
    root: Path,
    requested: float,
    created: float,
    earlier: Sequence[str],
    resumes: Sequence[float],
    end_if_stopped: SandboxGroup | None,
) -> threading.Thread:
    """Store where the run sandbox is, from a background thread.

    Args:
        requested: When Modal was asked for it, in seconds since the epoch.
        created: When it had created it.
        earlier: Modal's ids of the run sandboxes before this one, oldest first.
        resumes: When Modal was asked for those after the first.
        end_if_stopped: The sandboxes to end if the run was stopped before they were recorded.

    Returns:
        The thread. Once it has ended, other processes find the sandbox.
    """
    spec = plan.run_sandbox
    metadata = RunMetadata(
        target=plan.target,
        mode=plan.settings.mode,
        app=plan.settings.app_name,
        app_id=sandbox.app_id,
        sandbox_id=sandbox.id,
        timeout=spec.timeout,
        environment=plan.settings.modal_environment,
        sandbox_url=sandbox.url,
        gpu=sandbox.gpu,
        cpu=spec.resources.cpu,
        memory=spec.resources.memory,
        regions=",".join(spec.regions) or None,
        workspace=plan.settings.workspace,
        requested=requested,
        created=created,
        earlier=",".join(one for one in earlier if one != sandbox.id) or None,
        resumes=[*resumes, requested] if earlier else None,
    )

    def record() -> None:
        with timeline.phase("record the sandbox"):
            known = replace(metadata, commit=commit_of(root))
            stopped = zenml.record_metadata(run_id, to_metadata(known))
        if stopped and end_if_stopped is not None:
            with contextlib.suppress(ModalrunError):
                end_if_stopped.terminate()

    thread = threading.Thread(target=record, name="recording", daemon=True)
    thread.start()
    return thread


class Announcer:
    """Store in ZenML what a submission waits for, from background threads."""

    def __init__(self, zenml: ZenMLGateway, run_id: str) -> None:
        self._zenml = zenml
        self._run_id = run_id
        self._wait: CapacityWait | None = None
        self._storing = threading.Lock()

    def announce(self, wait: CapacityWait | None) -> None:
        """Store a wait, or that it is over."""
        self._wait = wait
        threading.Thread(target=self._store, name="announcing", daemon=True).start()

    def _store(self) -> None:
        # Whichever thread comes last stores the present value.
        with self._storing, contextlib.suppress(ModalrunError):
            self._zenml.publish_metadata(self._run_id, waiting_metadata(self._wait))


def all_run_sandboxes(metadata: RunMetadata | None) -> tuple[str, ...]:
    """Return the ids of all run sandboxes that a record names, oldest first."""
    return (*metadata.earlier_sandboxes, metadata.sandbox_id) if metadata is not None else ()
