"""Register modalrun in ZenML and write a run spec for a project: `modalrun init`."""

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
from modalrun.plan.stack import problems_on_modal, wrong_stack
from modalrun.run.run_plan import Target
from modalrun.spec.python_pipelines import FoundPipeline, in_file
from modalrun.spec.run_spec import load_spec
from modalrun.spec.spec_argument import DEFAULT_FILES, source_root_of
from modalrun.submit.source.imports import check_imports
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.zenml_api import process


@dataclass(frozen=True)
class Initialized:
    """The result of `initialize`.

    Attributes:
        steps: The parts of the setup, in order, each with whether it was created now.
        undo: Commands that delete what was created now, in order.
        next: What the user can do next: a description and a command.
    """

    steps: tuple[tuple[str, bool], ...]
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
    """Register what is missing, and write a run spec if there is none.

    Args:
        pipeline: The pipeline of the run spec, as for `pipeline_discovery.named`; None for the
            only one of the project.
        from_stack: The stack that the new one takes its components from; None for the active one.
        target: Where the new stack's runs go.
        name: The name of orchestrator and stack; None for the default.
        spec: The run spec's file, below `folder` unless it is absolute.

    Raises:
        UsageError: There is no such pipeline, a name is taken by something else, or the stack can't
            be used with the target. Nothing was registered.
        NotFoundError: There is no such stack.
        AuthenticationError, ConnectionLostError: ZenML's server refuses the credentials, or can't
            be reached.
    """
    again = ["modalrun", "init", "module.function", "--target", target]
    again += ["--from", from_stack] if from_stack else []
    again += ["--name", name] if name else []
    again += ["--spec", str(spec)] if spec != Path(DEFAULT_FILES[0]) else []
    name = name or ("modalrun" if target == "modal" else "modalrun_local")
    root = source_root_of(folder)
    existing = _read_spec(folder / spec)
    found = pipeline_discovery.pipelines(root) if existing is None or pipeline else []
    if existing is None and not os.access(into := (folder / spec).parent, os.W_OK):
        raise UsageError(
            f"{spec} can't be written: {into} is no folder that you may write to. Nothing was"
            " registered.",
            hint="Create the folder, or name another file with --spec.",
        )
    if pipeline is not None:
        found = [pipeline_discovery.named(pipeline, folder, root, found)]
    with process.zenml_process(root), redirect_stdout(sys.stderr):
        from modalrun.zenml_api import registration

        stack = registration.base_stack(from_stack, root)
        problems = problems_on_modal(stack) if target == "modal" else []
        if problems:
            error = wrong_stack(stack, problems)
            raise UsageError(
                f"{error.problem}\nNothing was registered.",
                hint="Name another stack with --from, or use '--target local'.",
            )
        made = registration.register(stack, name, target)
    steps = list(made.steps)
    undo = list(made.undo)
    following: list[tuple[str, str]] = []
    ready = _write_spec(
        folder / spec, root, found, name, target, again=shlex.join(again), steps=steps
    )
    if ready and steps[-1][1]:
        undo.append(f"rm {shlex.quote(str(spec))}")
        existing = _read_spec(folder / spec)
        if existing is not None and _leaves_modules_behind(found[0].source, existing.root):
            command = f"modalrun plan {shlex.quote(str(spec))}"
            following.append(("see the modules that stay behind", command))
    following += _to_run(existing, spec) if ready and existing is not None else []
    following += _as_usual(existing or _ExistingSpec(), folder, stack=name, active=made.active)
    return Initialized(tuple(steps), tuple(undo), tuple(following))


@dataclass(frozen=True)
class _ExistingSpec:
    """The project's run spec; `pipeline` only if it is found below the source root."""

    error: UsageError | None = None
    pipeline: FoundPipeline | None = None
    root: Path = Path()
    parameters: Mapping[str, object] = field(default_factory=dict)


def _read_spec(path: Path) -> _ExistingSpec | None:
    """Read the run spec of a file; None if there is no such file."""
    if not path.exists():
        return None
    try:
        spec = load_spec(path)
    except UsageError as error:
        return _ExistingSpec(error)
    if not spec.pipeline:
        return _ExistingSpec()
    module = spec.pipeline.rpartition(".")[0]
    file = spec.source_root.joinpath(*module.split(".")).with_suffix(".py")
    found = in_file(file, spec.source_root)
    named = next((one for one in found if one.source == spec.pipeline), None)
    given = spec.run_configuration.get("parameters") or {}
    return _ExistingSpec(None, named, spec.source_root, given)


def _leaves_modules_behind(pipeline: str, root: Path) -> bool:
    """Return whether an ignore rule leaves out the module of a pipeline, or one that it imports."""
    selection = SourceSelection(root, modules=(pipeline.rpartition(".")[0],), folders=(root,))
    try:
        check_imports(selection, select(selection))
    except UsageError:
        return True
    return False


def _to_run(existing: _ExistingSpec, spec: Path) -> list[tuple[str, str]]:
    """Return the command that runs the pipeline of a run spec, or what to do first."""
    file = shlex.quote(str(spec))
    if existing.error is not None:
        return [("see its mistakes", f"modalrun plan {file}")]
    required = existing.pipeline.required if existing.pipeline is not None else ()
    missing = [name for name in required if name not in existing.parameters]
    first = f"set {', '.join(missing)} in {spec}, then" if missing else "run the pipeline"
    return [(first, f"modalrun submit {file}")]


def _as_usual(
    existing: _ExistingSpec, folder: Path, *, stack: str, active: bool
) -> list[tuple[str, str]]:
    """Return the commands that run the script of a run spec's pipeline from `folder`, in order.

    Args:
        stack: The stack that it must run on.
        active: Whether that is the active one of `folder`.
    """
    activate = ("make the stack the active one", f"zenml stack set {shlex.quote(stack)}")
    first = [] if active else [activate]
    if existing.pipeline is None or existing.pipeline.script is None:
        return first
    script, root = Path(existing.pipeline.script), os.path.relpath(existing.root, folder)
    if len(script.parts) == 1:
        command = f"python {shlex.quote(str(Path(root, script)))}"
    else:
        # As a file, it could not import the modules of its own package.
        command = f"python -m {'.'.join(script.with_suffix('').parts)}"
        if not (existing.root / ".zen").is_dir():
            # Without it, ZenML's source root is the folder of the script, in the package. It has an
            # active stack of its own.
            first = [("make the folder a ZenML project", "zenml init"), activate]
        if root != ".":
            there = f"cd {shlex.quote(root)} && "
            first = [(what, f"{there}{known}") for what, known in first]
            command = f"{there}{command}"
    return [*first, ("then run it as usual" if first else "run it as usual", command)]


def _write_spec(
    path: Path,
    root: Path,
    found: Sequence[FoundPipeline],
    stack: str,
    target: Target,
    *,
    again: str,
    steps: list[tuple[str, bool]],
) -> bool:
    """Write the run spec if possible; return whether there is one.

    Args:
        again: The command that writes it once a pipeline is named.
        steps: Gets what was done.
    """
    if path.exists():
        steps.append((f"{path.name} is there already and stays as it is", False))
        return True
    if len(found) != 1:
        what = (
            "there is no pipeline below this folder"
            if not found
            else f"there are several pipelines: {', '.join(one.source for one in found)}"
        )
        steps.append((f"no run spec: {what}; name one: '{again}'", False))
        return False
    try:
        # "x": another process may have written it meanwhile.
        with path.open("x", encoding="utf-8") as file:
            file.write(spec_text(found[0], stack, target, path.parent, root))
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from error
    steps.append((f"{path.name}, a run spec for {found[0].source}", True))
    return True


def spec_text(
    pipeline: FoundPipeline, stack: str, target: Target, folder: Path, project: Path
) -> str:
    """Return a run spec for a folder of a project, with comments for a new user."""
    arguments = "".join(f"#   {name}: {value}\n" for name, value in pipeline.parameters)
    parameters = f"# parameters:\n{arguments}" if arguments else ""
    root = beside = ""
    if source_root_of(folder) != project:
        root = f"source_root: {os.path.relpath(project, folder)}\n"
    if pipeline.src and not pipeline.src.is_relative_to(project):
        root = f"source_root: {os.path.relpath(pipeline.src, folder)}\n"
    elif pipeline.src:
        instead = f"with {root.strip()}" if root else "instead of source_root"
        name = os.path.relpath(pipeline.src, project)
        beside = f"#     environment: {{PYTHONPATH: {name}}}  # {instead}\n"
        src = os.path.relpath(pipeline.src, folder)
        root = f"source_root: {src}  # nothing beside it goes along: see PYTHONPATH below\n"
    return f"""\
# A run spec: modalrun submit <this file>
# It is a ZenML run configuration (parameters, settings, steps, enable_cache, run_name, ...) and a
# few keys of modalrun's.

pipeline: {pipeline.source}
{root}stack: {stack}
target: {target}  # modal: Modal's cloud; local: the local Modal server, on this machine
{parameters}
mode: pipeline  # all steps in one sandbox; per_step: a sandbox for each
timeout: 1h  # then the run is ended; without it after 6h
# gpu: [H100, A100]  # a type ('A100:2': two), or several to try in this order
# cpu: 4
# memory: 16GiB
# max_parallelism: 2  # how many steps may run side by side
# modal:
#   secrets: [my-modal-secret]

# settings:
#   docker:  # becomes a Modal image; no Docker is needed
#     requirements: [scikit-learn]
{beside}
# steps:  # settings of single steps, by name
#   {pipeline.step or "STEP_NAME"}:
#     settings:
#       resources: {{memory: 32GiB}}
"""
