"""Run spec -> compiled deployment -> plan: what `submit`, `plan` and `compile` have in common."""

from __future__ import annotations

import gc
import platform
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.plan import deployment_file
from modalrun.plan import planner as plan
from modalrun.plan.deployment import Deployment
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.model import Plan
from modalrun.plan.stack import StackFacts, problems_on_modal
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.runtime_packages import engine_packages
from modalrun.zenml_api.process import zenml_process

if TYPE_CHECKING:
    from modalrun.zenml_api.compile import Compiled


@dataclass(frozen=True)
class Prepared:
    """A plan, and what has to be known beside it to run or judge it.

    Attributes:
        plan: The sandboxes.
        stack: The stack that the deployment is compiled for.
        problems: Why the stack can't be used with the target; empty if it can.
        credentials: The Modal token of the stack's orchestrator. Never printed.
    """

    plan: Plan
    stack: StackFacts
    problems: tuple[str, ...] = ()
    credentials: tuple[str, str] | None = field(default=None, repr=False)


def prepare(spec: RunSpec) -> Prepared:
    """Plan a spec. A deployment file needs no ZenML and is planned in milliseconds.

    Raises:
        ModalrunError: The spec, the pipeline, the stack or a setting is wrong, or ZenML's server
            refuses or is not there.
    """
    path = file_of(spec)
    if path is not None:
        # A thousand steps are a hundred thousand small values, none of them garbage.
        gc.disable()
        held = deployment_file.read(path)
        spec = _with_root_of(spec, path, held)
        return prepared(_with_spec(held, spec), held.stack, spec, held.python_version)
    with zenml_process(spec.source_root):
        compiled = load(spec)
        return prepared(compiled.deployment, compiled.facts, spec, credentials=compiled.credentials)


def prepared(
    deployment: Deployment,
    stack: StackFacts,
    spec: RunSpec,
    python_version: str | None = None,
    *,
    credentials: tuple[str, str] | None = None,
) -> Prepared:
    """The plan of a deployment, on this machine's Python unless another one compiled it.

    Raises:
        UsageError: A setting is not supported, or settings contradict one another.
    """
    made = plan.make_plan(
        deployment,
        target=spec.target,
        source_root=spec.source_root,
        python=sys.executable if spec.target == "local" else "python",
        python_version=python_version or this_python(),
        engine_packages=engine_packages(built=spec.target == "modal"),
    )
    problems = problems_on_modal(stack) if spec.target == "modal" else []
    return Prepared(made, stack, tuple(problems), credentials)


def load(spec: RunSpec) -> Compiled:
    """Compile the pipeline of a spec, or get the compiled one from its file or from ZenML.

    To be called inside `zenml_process`.

    Raises:
        ModalrunError: As for `prepare`.
    """
    # Imports allocate much and free nothing: collecting meanwhile costs a fifth of the time.
    gc.disable()
    try:
        with redirect_stdout(sys.stderr):
            from modalrun.zenml_api import compile, snapshots

        path = file_of(spec)
        # ZenML and the user's modules print to stdout while they are imported; stdout is for data.
        with redirect_stdout(sys.stderr):
            if path is not None:
                return snapshots.from_file(deployment_file.read(path), spec)
            if spec.deployment is not None:
                return snapshots.stored(spec.deployment, spec)
            return compile.compile_spec(spec)
    finally:
        gc.freeze()
        gc.enable()


def file_of(spec: RunSpec) -> Path | None:
    """The deployment file that a spec names; None where it names a snapshot, or a pipeline."""
    if spec.deployment is None:
        return None
    path = spec.source.path.resolve().parent / Path(spec.deployment).expanduser()
    looks_like_one = path.suffix == ".json" or "/" in spec.deployment
    return path if looks_like_one or path.is_file() else None


def with_source_root(spec: RunSpec) -> RunSpec:
    """The spec with the source root of its deployment file, unless it names one itself.

    Raises:
        UsageError: There is no such file, or it is damaged.
    """
    path = file_of(spec)
    return spec if path is None else _with_root_of(spec, path, deployment_file.read(path))


def this_python() -> str:
    """The Python that runs this process, "3.11"."""
    return ".".join(platform.python_version_tuple()[:2])


def _with_spec(held: DeploymentFile, spec: RunSpec) -> Deployment:
    deployment = held.deployment
    spec.check_steps([step.name for step in deployment.steps], deployment.pipeline)
    deployment = deployment.with_places(spec.places, spec.step_places)
    return replace(deployment, notes=(*deployment.notes, *spec.notes))


def _with_root_of(spec: RunSpec, path: Path, held: DeploymentFile) -> RunSpec:
    root = (path.parent / held.source_root).resolve()
    return spec if spec.has_source_root or not root.is_dir() else replace(spec, source_root=root)
