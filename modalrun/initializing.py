"""What `modalrun init` does: ZenML gets to know modalrun, and a project gets a run spec."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from modalrun import finding, preparation
from modalrun.errors import UsageError
from modalrun.finding import FoundPipeline
from modalrun.spec import Target
from modalrun.stack_facts import problems_on_modal, wrong_stack


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
    root = finding.source_root(folder)
    found = [] if (folder / spec).exists() else finding.pipelines(root)
    if pipeline is not None:
        if "." not in pipeline or not all(part.isidentifier() for part in pipeline.split(".")):
            raise UsageError(
                f"'{pipeline}' is not a pipeline's source (module.function).",
                hint="As in 'modalrun init my_project.training.pipeline'.",
            )
        found = [one for one in found if one.source == pipeline] or [FoundPipeline(pipeline)]
    with preparation.zenml_process(root), redirect_stdout(sys.stderr):
        from modalrun.zenml_api import registering

        stack = registering.stack_to_start_from(from_stack, root)
        problems = problems_on_modal(stack) if target == "modal" else []
        if problems:
            error = wrong_stack(stack, problems)
            raise UsageError(
                f"{error.message}\nNothing was registered.",
                hint="Name another stack with --from, or use '--target local'.",
            )
        made = registering.register(stack, name, target)
    steps = [Step(text, new) for text, new in made.steps]
    undo = list(made.undo)
    ready = _write_spec(folder / spec, found, name, target, steps)
    if ready and steps[-1].new:
        undo.append(f"rm {spec}")
    script = found[0].script if len(found) == 1 else None
    return Initialized(
        tuple(steps),
        tuple(undo),
        (
            *((("run the pipeline", f"modalrun submit {spec}"),) if ready else ()),
            ("make the stack the active one", f"zenml stack set {name}"),
            ("then run pipelines as ever", f"python {script or '<your script>'}"),
        ),
    )


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
