"""A fake of the ZenML gateway: it holds a run's state and logs every effect in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.stack import StackDescription
from modalrun.run.artifacts import Artifact
from modalrun.run.records import (
    App,
    CreatedRun,
    DeploymentRecord,
    Placeholder,
    RunRecord,
    StepRecord,
)
from modalrun.run.run_plan import PlannedStep
from modalrun.run.source import Source
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from tests.unit.fakes import NOW, RUN_ID, Effects

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled


class FakeZenML:
    """ZenML with one run: in place of `ZenMLGateway`.

    Attributes:
        run: The run's record; `read_run` returns it.
        steps: The records of its steps.
        others: Other runs, newest first.
        children: The runs of its child pipelines.
        on_read: Called at each `read_run`, before it returns.
        metadata: What was stored with the run.
        created: The placeholder run.
        on_created: Called when it exists, before its creation returns.
        stopping: Whether somebody has stopped the run.
        unfinished: The steps that are unfinished.
        credentials: The token of the stack's orchestrator.
        reasons: Why the run was finalized, each time.
        source: The record of the run's source tree.
        compiled: The run's deployment.
        deployment: What identifies it.
    """

    def __init__(self, effects: Effects, status: str = "running") -> None:
        self.effects = effects
        self.run = RunRecord(RUN_ID, "a-run", "training", status, NOW)
        self.steps: tuple[StepRecord, ...] = ()
        self.others: list[RunRecord] = []
        self.children: dict[str, RunRecord] = {}
        self.on_read: Callable[[], None] = lambda: None
        self.metadata: dict[str, Any] = {}
        self.created = CreatedRun(RUN_ID, "a-run", None, {"ZENML_STORE_API_TOKEN": "secret"})
        self.on_created: Callable[[], None] = lambda: None
        self.stopping = False
        self.lines: Sequence[str] = ()
        self.unfinished: tuple[str, ...] = ()
        self.credentials: tuple[str, str] | None = None
        self.source: Source | None = None
        self.compiled = compiled()
        self.deployment = DeploymentRecord("snapshot", "st-1")
        self.reasons: list[str] = []

    def active_user(self) -> str:
        return "us-1"

    def create_run(self, placeholder: Placeholder) -> CreatedRun:
        self.effects.add("create run")
        placeholder.run_id = self.created.id
        self.on_created()
        return self.created

    def resolve_images(self, plan: Any, compiled: Any) -> tuple[Any, None]:
        return plan, None

    def publish_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> None:
        # A submission announces its run beside everything else.
        if threading.current_thread().name != "cancellation":
            self.effects.add("publish metadata")
        self.metadata |= metadata

    def record_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> bool:
        self.effects.add("record sandbox")
        self.metadata |= metadata
        return self.stopping

    def stop_requested(self, run_id: str) -> bool:
        return self.stopping

    def record_stop_request(self, run_id: str) -> None:
        self.effects.add("record stop request")

    def mark_stopping(self, run_id: str, reason: str) -> bool:
        self.effects.add("mark stopping")
        self.run = replace(self.run, status="stopping")
        return True

    def finalize_run(
        self,
        run_id: str,
        reason: str,
        *,
        stopped: bool = False,
        lines: Sequence[str] = (),
        used: Sequence[str] = (),
        unseen: bool = False,
    ) -> bool:
        self.lines = lines
        self.effects.add("finalize run")
        self.reasons.append(reason)
        if self.run.finished or (self.run.status == "paused" and not stopped):
            return False
        ends_stopped = stopped or self.run.status == "stopping"
        self.run = replace(self.run, status="stopped" if ends_stopped else "failed")
        return True

    def pause_again(self, run_id: str) -> None:
        self.effects.add("pause again")
        if self.run.status == "running":
            self.run = replace(self.run, status="paused")

    def read_run(self, run_id: str) -> RunRecord:
        self.on_read()
        return self.run

    def read_run_and_steps(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]]:
        self.effects.add("read run and steps")
        return self.run, self.steps

    def child_runs(self, run: RunRecord) -> dict[str, RunRecord]:
        return self.children

    def matching_runs(self, text: str) -> list[RunRecord]:
        return [run for run in (self.run, *self.others) if run.id.startswith(text)]

    def newest_runs(self, *, limit: int, pipeline: str | None = None, **_: Any) -> list[RunRecord]:
        found = [run for run in (self.run, *self.others) if pipeline in (None, run.pipeline)]
        return found[:limit]

    def environment_of(self, run_id: str, step: str | None) -> dict[str, str]:
        return {"OF_PIPELINE": "1"} if step is None else {"OF_PIPELINE": "1", "OF_STEP": step}

    def step_names(self, run_id: str) -> tuple[str, ...] | None:
        return tuple(step.name for step in self.steps) or None

    def step_attempts(self, runs: Sequence[RunRecord]) -> dict[str, list[StepRecord]]:
        return {run.id: list(self.steps) for run in runs}

    def read_source(self, run_id: str) -> Source | None:
        return self.source

    def with_visualizations(self, run_id: str, found: list[Artifact]) -> list[Artifact]:
        return found

    def deployment_of(self, run_id: str) -> DeploymentRecord:
        return self.deployment

    def load_deployment_of_run(self, run_id: str, spec: RunSpec) -> Compiled:
        return self.compiled

    def app_of(self, run_id: str) -> App | None:
        return App("zenml-pipeline-training")

    def driver_environment(self, run_id: str) -> dict[str, str]:
        return {"ZENML_STORE_API_TOKEN": "secret"}

    def unfinished_steps(self, run_id: str) -> tuple[str, ...]:
        return self.unfinished

    def credentials_of(self, run_id: str, target: str) -> tuple[str, str] | None:
        return self.credentials


def compiled(
    *steps: PlannedStep, stack: StackDescription | None = None, **settings: Any
) -> Compiled:
    """A compiled pipeline without ZenML's part, with orchestrator settings in its code."""
    layers = {Origin.CODE_PIPELINE: SettingsLayer(settings)}
    deployment = Deployment(
        "training", tuple(CompiledStep(step) for step in steps or (PlannedStep("train"),)), layers
    )
    parts = {
        "deployment": deployment,
        "snapshot": None,
        "stack": SimpleNamespace(name="default"),
        "stack_description": stack or StackDescription("st-1", "default"),
        "credentials": None,
        "rerun": None,
        "docker_digest": "",
    }
    return cast("Compiled", SimpleNamespace(**parts))
