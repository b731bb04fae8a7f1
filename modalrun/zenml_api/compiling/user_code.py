"""Run the code of the user's project while its pipeline is imported and compiled."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from zenml.exceptions import AuthorizationException, ZenKeyError
from zenml.execution.pipeline.utils import prevent_pipeline_execution
from zenml.pipelines.pipeline_definition import Pipeline
from zenml.steps import BaseStep

from modalrun.errors import Interrupted, ModalrunError, UsageError
from modalrun.spec.messages import path_name
from modalrun.spec.run_spec import RunSpec
from modalrun.spec.validation import one_error, validation_messages
from modalrun.spec.yaml_nodes import KeyPath
from modalrun.util import interrupts, line_ends
from modalrun.util.nearest import nearest, nearest_path
from modalrun.zenml_api.compiling.module_places import missing_module_hint, subfolder_hint
from modalrun.zenml_api.errors import message, translated

_HOW_ROOT = (
    "The source root is the nearest folder with '.zen' from that of the run spec upwards (without"
    " one, from the current folder), else that folder; 'source_root:' or '--source-root' sets"
    " another."
)

_INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


@contextlib.contextmanager
def user_code(spec: RunSpec, doing: str) -> Iterator[None]:
    """Run a block that calls the project's code: in the source root, as a sandbox does.

    Whatever that code raises, and an exit that it asks for, becomes an error that names its line.

    Args:
        doing: What the block does, for the error: "importing 'my_module'".

    Raises:
        UsageError: The code failed, or ended the process.
        ModalrunError: ZenML refuses the credentials, or can't be reached.
    """
    try:
        with (
            line_ends.ended(),
            _working_folder(spec.source_root),
            _own_arguments(spec),
            _exit_raised(),
        ):
            yield
    except (ModalrunError, Interrupted):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and interrupts.pending():
            raise
        raise _failure(spec, doing, error) from error


def import_pipeline(spec: RunSpec) -> Pipeline:
    """Import the pipeline of a run spec.

    Raises:
        UsageError: Its module can't be imported, or has no such pipeline.
    """
    module_name, _, attribute = spec.pipeline.rpartition(".")
    missing = None
    # A script without a main guard would run its pipeline while it is imported.
    with user_code(spec, f"importing '{module_name}'"), prevent_pipeline_execution():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            missing = error
    if missing is not None:
        # Only here a relative path is what the user means by it.
        raise _no_module(spec, str(missing.name)) from missing
    found = getattr(module, attribute, None)
    if isinstance(found, Pipeline):
        return found
    pipelines = sorted(name for name, value in vars(module).items() if isinstance(value, Pipeline))
    close = nearest(attribute, pipelines)
    if close:
        place = str(spec.source.path).rpartition(":")[0]
        hint = f"Did you mean '{f'{place}:' if _is_typed(spec) else f'{module_name}.'}{close}'?"
    elif pipelines:
        hint = f"Pipelines in '{module_name}': {', '.join(pipelines)}."
    else:
        hint = "A pipeline is a function decorated with '@pipeline' from zenml."
    if not hasattr(module, attribute):
        problem = f"the module '{module_name}' has no '{attribute}'."
    else:
        # ZenML makes a class of each step, with the name of its function.
        kind = "a step" if isinstance(found, BaseStep) else f"of type '{type(found).__name__}'"
        problem = f"'{spec.pipeline}' is not a ZenML pipeline, it is {kind}."
    raise spec.error(("pipeline",), problem, hint)


def _is_typed(spec: RunSpec) -> bool:
    """Return whether the pipeline is written with a colon, on a command line, and not in a file."""
    return str(spec.source.path).endswith(f":{spec.pipeline.rpartition('.')[2]}")


def _similar_module(spec: RunSpec) -> str | None:
    """Return a hint with the module of the source root that a misspelt one most likely means."""
    module, _, attribute = spec.pipeline.rpartition(".")
    path = Path(*module.split(".")).with_suffix(".py")
    close = nearest_path(spec.source_root, path)
    names = close.with_suffix("").parts if close and close.suffix in {"", ".py"} else ()
    if not names or not all(name.isidentifier() for name in names):
        return None
    return f"Did you mean '{'.'.join(names)}{':' if _is_typed(spec) else '.'}{attribute}'?"


def _no_module(spec: RunSpec, name: str) -> UsageError:
    hint = spec.root_hint
    if spec.rerun is None:
        hint = subfolder_hint(name, spec) or _similar_module(spec) or _HOW_ROOT
    problem = f"there is no module '{name}' below the source root {spec.source_root}."
    return spec.error(("pipeline",), problem, hint)


def _failure(spec: RunSpec, doing: str, error: BaseException) -> ModalrunError:
    """Return our error for one of the project's code or of ZenML's compiler."""
    if isinstance(error, AuthorizationException | ZenKeyError | RuntimeError):
        try:
            with translated():
                raise error
        except ModalrunError as known:
            return known
        except RuntimeError:
            pass
    place = _place(spec, error)
    # A cause that names the value says more than what ZenML makes of it.
    cause = error if isinstance(error, ValidationError) else error.__cause__ or error.__context__
    # Of an input of a step, ZenML's own text has the name (`entrypoint_function_utils.py`, 0.98.0).
    if isinstance(cause, ValidationError) and cause.title != "input_validation_model":
        return one_error(
            [
                _wrong_value(spec, f"{doing} failed{place}", where, problem)
                for where, problem in validation_messages(cause)
            ]
        )
    hint = "--debug shows the whole traceback."
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SystemExit) and any(frame.name == "<module>" for frame in frames):
        hint = (
            "Modules are imported to compile and to run steps: keep what a script does below"
            " 'if __name__ == \"__main__\":'."
        )
    elif isinstance(error, ModuleNotFoundError):
        hint = (error.name and missing_module_hint(error.name, spec)) or hint
    text = message(error)
    return spec.error(
        ("pipeline",),
        f"{doing} failed{place}: {type(error).__name__}{f': {text}' if text else ''}",
        hint,
    )


def _wrong_value(spec: RunSpec, failed: str, where: KeyPath, problem: str) -> UsageError:
    # ZenML names the field alone; where the file has it once, that is the place.
    places = [path for path in spec.source.lines if where and path[-len(where) :] == where]
    if len(places) == 1:
        return spec.error(places[0], f"'{path_name(places[0])}'{problem}")
    name = path_name(where) or spec.pipeline
    return UsageError(
        f"{spec.source.path}: {failed}: '{name}', in the settings or parameters of the code or the"
        f" run spec{',' if problem.startswith(' ') else ''}{problem}"
    )


def _place(spec: RunSpec, error: BaseException) -> str:
    """Return the line of the project's code that an error came from, in parentheses."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(spec.source_root) and not any(map(file.is_relative_to, _INSTALLED)):
            return f" ({file}:{frame.lineno})"
    return ""


@contextlib.contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    # The folder that is left may have been deleted: it has no path then.
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@contextlib.contextmanager
def _own_arguments(spec: RunSpec) -> Iterator[None]:
    """Let the code see the pipeline's file as the command line, without modalrun's arguments."""
    before = sys.argv
    module = spec.source_root.joinpath(*spec.pipeline.split(".")[:-1])
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    sys.argv = [str(file)]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _exit_raised() -> Iterator[None]:
    """Let `os._exit` raise SystemExit: it would end the command with the code of a success."""
    process, leave = os.getpid(), os._exit

    def exit_process(status: int) -> NoReturn:
        if os.getpid() != process:
            # A worker that the code has forked.
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = exit_process
    try:
        yield
    finally:
        os._exit = leave
