"""Define a run as it is planned, carried in the manifest and created. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from modalrun.run.contract import RUN_ID
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import TAG_RUN

Mode = Literal["pipeline", "per_step"]
Target = Literal["modal", "local"]

P = TypeVar("P", bound="RunPlan")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Hold the settings of a run as a whole; a step can't have its own.

    Attributes:
        mode: One sandbox for all steps, or one for each.
        app_name: The persistent Modal app that the sandboxes belong to.
        modal_environment: The Modal environment; None for the default one.
        workspace: The Modal workspace that the token must belong to; None for any.
        max_parallelism: How many steps may run at once; None for no limit of the user's.
        synchronous: Whether `submit` waits for the end of the run.
        infrastructure_retries: How often a step whose sandbox is lost is executed again.
        keep_warm: Seconds that a step sandbox waits for another step; 0 for one step each.
        creation_rate: The most sandboxes that are created in a second. A Modal workspace may create
            5 a second (Modal's dashboard, Starter plan; GitHub: PrimeIntellect-ai/verifiers#1639).
        wait_for_capacity: Seconds to wait in all for a place for the run sandbox; None to ask for
            each GPU type once.
        source_include: Files and folders that go to the sandboxes although a rule leaves them out.
    """

    mode: Mode = "pipeline"
    app_name: str
    modal_environment: str | None = None
    workspace: str | None = None
    max_parallelism: int | None = None
    synchronous: bool = True
    infrastructure_retries: int = 2
    keep_warm: int = 0
    creation_rate: float = 5.0
    wait_for_capacity: int | None = None
    source_include: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedStep:
    """Hold one step of a run.

    Attributes:
        name: The step's invocation id, unique in the pipeline.
        upstream: The names of the steps that it waits for.
        retries: How often it is tried again after a failure.
        delay: Seconds before the first retry.
        backoff: The factor on the delay before each further retry.
        caches: Whether ZenML's cache may supply its outputs.
        sandbox: Its own sandbox; None in `pipeline` mode, where it runs in the run sandbox.
    """

    name: str
    upstream: tuple[str, ...] = ()
    retries: int = 0
    delay: float = 0
    backoff: float = 1
    caches: bool = False
    sandbox: SandboxSpec | None = None


@dataclass(frozen=True)
class RunPlan:
    """Hold the sandboxes and steps of a run.

    Attributes:
        target: Modal's cloud or the local Modal server.
        pipeline: The pipeline's name.
        settings: The settings of the run as a whole.
        run_sandbox: The sandbox that every run has: for the steps or, in `per_step`, the driver.
        steps: The steps, parents before children.
        dynamic: Whether the pipeline decides while it runs which steps there are.
    """

    target: Target
    pipeline: str
    settings: RunSettings
    run_sandbox: SandboxSpec
    steps: tuple[PlannedStep, ...] = ()
    dynamic: bool = False

    @property
    def sandboxes(self) -> tuple[SandboxSpec, ...]:
        """Every sandbox of the run: the run sandbox first, then the steps'."""
        return (self.run_sandbox, *(s.sandbox for s in self.steps if s.sandbox is not None))

    @property
    def has_driver(self) -> bool:
        """Whether the run sandbox creates other sandboxes: in `per_step` mode."""
        return self.settings.mode == "per_step"

    def sandbox_of_run(self, run_id: str) -> SandboxSpec:
        """Return the run sandbox of one run: its name and tags follow from the run id."""
        return replace(
            self.run_sandbox,
            name=sandbox_name(run_id),
            tags={TAG_RUN: run_id, **self.run_sandbox.tags},
            env={**self.run_sandbox.env, RUN_ID: run_id},
        )

    def in_environment(self: P, name: str) -> P:
        """Replace the Modal environment."""
        return replace(self, settings=replace(self.settings, modal_environment=name))

    def with_images(self, images: Mapping[str, str]) -> RunPlan:
        """Replace the reference to each sandbox's image by another.

        Args:
            images: The reference until now -> the new one, such as Modal's id of the built image.
        """

        def changed(sandbox: SandboxSpec) -> SandboxSpec:
            return replace(sandbox, image=images[sandbox.image])

        steps = tuple(
            replace(step, sandbox=changed(step.sandbox)) if step.sandbox else step
            for step in self.steps
        )
        run_sandbox = changed(self.run_sandbox)
        return RunPlan(self.target, self.pipeline, self.settings, run_sandbox, steps, self.dynamic)


def sandbox_name(run_id: str) -> str:
    """Return the name of a run's sandbox, by which an unanswered creation is found."""
    return f"modalrun-{run_id}"
