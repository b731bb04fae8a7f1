"""What `modalrun init` does: ZenML gets to know modalrun, and a project gets a run spec."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.flavor import pipeline_discovery
from modalrun.flavor.pipeline_discovery import FoundPipeline
from modalrun.plan.stack import problems_on_modal, wrong_stack
from modalrun.spec.run_spec import Target, load_spec
from modalrun.zenml_api import process


@dataclass(frozen=True)
class Step:
    """One thing that was looked at.

    Attributes:
        text: What it is.
        new: Whether it was made now.
    """

    text: str
    new: bool


@dataclass(frozen=True)
class Initialized:
    """What was done.

    Attributes:
        steps: In order.
        undo: Commands that take back what was made now, in order.
        next: What can be done with it: words and a command.
    """

    steps: tuple[Step, ...]
    undo: tuple[str, ...]
    next: tuple[tuple[str, str], ...]


def initialize(
    folder: Path,
    *,
    pipeline: str | None,
    from_stack: str | None,
    target: Target,
    name: str | None,
    spec: Path,
) -> Initialized:
    """Register what is missing, and write a run spec where there is none.

    Args:
        folder: The project.
        pipeline: The pipeline that the run spec is for; None for the only one there is.
        from_stack: The stack to start from; None for the active one.
        target: Where the new stack's runs go.
        name: The name of orchestrator and stack; None for the usual one.
        spec: The run spec's file, below `folder` unless it is absolute.

    Raises:
        UsageError: A name is taken by something else, or the stack can't be used with the target.
            Nothing was registered.
        NotFoundError: There is no such stack.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    name = name or ("modalrun" if target == "modal" else "modalrun_local")
    root = pipeline_discovery.source_root(folder)
    there = _there(folder / spec)
    found = [] if there is not None else pipeline_discovery.pipelines(root)
    if pipeline is not None:
        if "." not in pipeline or not all(part.isidentifier() for part in pipeline.split(".")):
            raise UsageError(
                f"'{pipeline}' is not a pipeline's source (module.function).",
                hint="As in 'modalrun init my_project.training.pipeline'.",
            )
        found = [one for one in found if one.source == pipeline] or [FoundPipeline(pipeline)]
    with process.zenml_process(root), redirect_stdout(sys.stderr):
        from modalrun.zenml_api import registration

        stack = registration.base_stack(from_stack, root)
        problems = problems_on_modal(stack) if target == "modal" else []
        if problems:
            error = wrong_stack(stack, problems)
            raise UsageError(
                f"{error.message}\nNothing was registered.",
                hint="Name another stack with --from, or use '--target local'.",
            )
        made = registration.register(stack, name, target)
    steps = [Step(text, new) for text, new in made.steps]
    undo = list(made.undo)
    ready = _write_spec(folder / spec, found, name, target, steps)
    if ready and steps[-1].new:
        undo.append(f"rm {shlex.quote(str(spec))}")
        there = _there(folder / spec)
    following = _to_run(there, spec) if ready and there is not None else []
    if not made.active:
        following.append(("make the stack the active one", f"zenml stack set {name}"))
    script = _script(there, folder) if there is not None else None
    if script is not None:
        following.append(
            ("run it as ever" if made.active else "then run it as ever", f"python {script}")
        )
    return Initialized(tuple(steps), tuple(undo), tuple(following))


@dataclass(frozen=True)
class _Spec:
    """The run spec that is there.

    Attributes:
        error: What is wrong with it.
        pipeline: The pipeline that it names, where that is found below its source root.
        root: Its source root.
        parameters: What it writes under `parameters`.
    """

    error: UsageError | None = None
    pipeline: FoundPipeline | None = None
    root: Path = Path()
    parameters: Mapping[str, object] = field(default_factory=dict)


def _there(path: Path) -> _Spec | None:
    """The run spec of a file; None where there is no such file."""
    if not path.exists():
        return None
    try:
        spec = load_spec(path)
    except UsageError as error:
        return _Spec(error)
    if not spec.pipeline:
        return _Spec()
    module = spec.pipeline.rpartition(".")[0]
    file = spec.source_root.joinpath(*module.split(".")).with_suffix(".py")
    named = [
        one
        for one in pipeline_discovery.in_file(file, spec.source_root)
        if one.source == spec.pipeline
    ]
    given = spec.run_configuration.get("parameters") or {}
    return _Spec(None, named[0] if named else None, spec.source_root, given)


def _to_run(there: _Spec, spec: Path) -> list[tuple[str, str]]:
    """How the pipeline of a run spec is run, or what has to be done first."""
    file = shlex.quote(str(spec))
    if there.error is not None:
        return [("see what is wrong with it", f"modalrun plan {file}")]
    required = there.pipeline.required if there.pipeline is not None else ()
    missing = [name for name in required if name not in there.parameters]
    if missing:
        set_first = f"set {', '.join(missing)} in {spec}, then"
        return [(set_first, f"modalrun submit {file}")]
    return [("run the pipeline", f"modalrun submit {file}")]


def _script(there: _Spec, folder: Path) -> str | None:
    """The script of a run spec's pipeline, for who stands in `folder`."""
    if there.pipeline is None or there.pipeline.script is None:
        return None
    return shlex.quote(os.path.relpath(there.root / there.pipeline.script, folder))


def _write_spec(
    path: Path, found: Sequence[FoundPipeline], stack: str, target: Target, steps: list[Step]
) -> bool:
    """Write the run spec if it can be; returns whether there is one."""
    if path.exists():
        steps.append(Step(f"{path.name} is there already and stays as it is", new=False))
        return True
    if len(found) != 1:
        what = (
            "there is no pipeline below this folder"
            if not found
            else f"there are several pipelines: {', '.join(one.source for one in found)}"
        )
        text = f"no run spec: {what}; name one: 'modalrun init module.function'"
        steps.append(Step(text, new=False))
        return False
    try:
        # "x": another process may have written it meanwhile.
        with path.open("x", encoding="utf-8") as file:
            file.write(spec_text(found[0], stack, target))
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from error
    steps.append(Step(f"{path.name}, a run spec for {found[0].source}", new=True))
    return True


def spec_text(pipeline: FoundPipeline, stack: str, target: Target) -> str:
    """A run spec with comments for who has never seen one."""
    arguments = "".join(f"#   {name}: {value}\n" for name, value in pipeline.parameters)
    parameters = f"# parameters:\n{arguments}" if arguments else ""
    return f"""\
# A run spec: modalrun submit <this file>
# It is a ZenML run configuration (parameters, settings, steps, enable_cache, run_name, ...) and a
# few keys of modalrun's.

pipeline: {pipeline.source}
stack: {stack}
target: {target}  # modal: Modal's cloud; local: the local Modal server, on this machine
{parameters}
settings:
  orchestrator:
    mode: pipeline  # all steps in one sandbox; per_step: a sandbox for each
    timeout: 3600  # seconds, then the run is ended
    # gpu: [H100, A100]  # a type, or several: when Modal has none of the first, the next
    # max_parallelism: 2  # how many steps may run side by side
    # secrets: [my-modal-secret]
  # resources:
  #   cpu_count: 4
  #   memory: 16GiB
  #   gpu_count: 1
  # docker:  # becomes a Modal image; no Docker is needed
  #   requirements: [scikit-learn]

# steps:  # settings of single steps, by name
#   train:
#     settings:
#       resources: {{memory: 32GiB}}
"""
