"""Define what a driver or a runner needs of a run. Pure.

The run manifest is for the driver of a `per_step` run. It travels with the run sandbox as a file,
so that the driver can start the first steps before it has imported ZenML. It is made anew for each
run sandbox, from the deployment and the settings of the user who submits or resumes the run, and
stored nowhere else: whoever could change it would have the driver's Modal token. It holds no
secret. The runner of a `pipeline` run has its graph from ZenML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from modalrun.run.events import StepState
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.values import adapter

MANIFEST_FILE = "/opt/modalrun-manifest/manifest.json"
"""Where the manifest is in the run sandbox: outside the code, which belongs to the user."""


@dataclass(frozen=True)
class RunManifest:
    """Hold a whole run, of `per_step` mode or of a dynamic pipeline.

    Attributes:
        plan: Its sandboxes and steps; every image is built.
        failure_mode: The value of ZenML's `ExecutionMode`.
        variables: The names of the environment variables that reach ZenML; their values travel as
            a Modal secret.
        ahead: The steps whose first sandbox the submission creates, beside that of the driver.
        done: The steps that were done when the run was submitted, each with its state; they don't
            run.
        docker: The digest of the pipeline's Docker settings, of a dynamic pipeline.
        layers: The sandbox settings that are written elsewhere than in the code, by place; of a
            dynamic pipeline, whose steps are not known when it is submitted.
    """

    run_id: str
    plan: RunPlan
    failure_mode: str
    variables: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
    done: Mapping[str, StepState] = field(default_factory=dict)
    docker: str = ""
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def sandbox_of(self, step: str) -> SandboxSpec | None:
        """Return the sandbox of a planned step; None for a step that is not planned."""
        return next((one.sandbox for one in self.plan.steps if one.name == step), None)

    def to_json(self) -> str:
        """Return the manifest as JSON; default values are left out."""
        return adapter(RunManifest).dump_json(self, exclude_defaults=True).decode()

    @staticmethod
    def from_json(text: str) -> RunManifest:
        """Read a manifest from its JSON.

        Raises:
            ValueError: It is damaged.
        """
        try:
            return adapter(RunManifest).validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ValueError(f"the manifest can't be read: {place}: {first['msg']}") from error


@dataclass(frozen=True)
class Graph:
    """The steps of a static pipeline, for the runner of a `pipeline` run.

    Attributes:
        steps: Each step's name -> the names of the steps it waits for, parents first.
        retries: Each step's number of retries, first delay in seconds, and its growth factor.
        done: The steps that have succeeded already, each with its state.
        failure_mode: ZenML's `ExecutionMode`, as its value.
    """

    steps: Mapping[str, tuple[str, ...]]
    retries: Mapping[str, tuple[int, float, float]]
    done: Mapping[str, StepState]
    failure_mode: str
