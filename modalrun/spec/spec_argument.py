"""Read what a command line names as its run spec: a file, or a pipeline without one. Pure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.spec.python_pipelines import import_folder, in_file
from modalrun.spec.yaml_source import YamlSource, read_yaml
from modalrun.util.nearest import nearest_path, path_hint
from modalrun.util.paths import checked_path, user_path
from modalrun.util.text import listing, shell_word

DEFAULT_FILES = ("modalrun.yaml", "run.yaml")
"""The run specs that a command takes when none is named."""

_AS_IN = "'modalrun submit training.py:training' runs the pipeline 'training' of a file"


def default_spec(folder: Path) -> Path:
    """Return the run spec of a folder.

    Raises:
        UsageError: There is none, or more than one.
    """
    here = [folder / name for name in DEFAULT_FILES if os.path.lexists(folder / name)]
    if len(here) > 1:
        raise UsageError(f"There are {here[0]} and {here[1]}.", hint="Name the one that you mean.")
    if not here:
        place = "This folder" if folder == Path() else f"The folder {folder}"
        raise UsageError(
            f"{place} has no {' or '.join(DEFAULT_FILES)}.",
            hint="Name a run spec, or 'modalrun init' writes one (without an account: 'modalrun"
            f" init --target local'). {_AS_IN} without one.",
        )
    return here[0]


def spec_source(argument: Path, source_root: Any) -> YamlSource:
    """Read a run spec, or make the one of a deployment file or a pipeline.

    Args:
        argument: A YAML file, a folder with one of `DEFAULT_FILES`, a deployment file (`.json`), or
            a pipeline: `training.py:training` or `my_project.training:pipeline`.
        source_root: The source root that the command line sets; the names of modules depend on it.
            Whoever checks the spec reports one that is no text.

    Raises:
        UsageError: There is no such file, or it can't be read.
    """
    checked_path(argument, "The run spec")
    if os.path.lexists(argument) and argument.is_dir():
        argument = default_spec(argument)
    place, colon, name = str(argument).rpartition(":")
    root = None
    # That of a run spec is checked with its other keys.
    if isinstance(source_root, str) and not os.path.lexists(argument):
        root = argument.resolve().parent / user_path(source_root, "'source_root'")
    if colon and not os.path.lexists(argument):
        is_file = Path(place).suffix in {".yaml", ".yml", ".json"} and not module_file(place, root)
        if is_file:
            raise UsageError(
                f"{argument}: a run spec or deployment file takes no ':{name}'.",
                hint=f"'modalrun submit {shell_word(place)}' runs its pipeline. {_AS_IN} without"
                " a run spec.",
            )
        return _of_pipeline(argument, place, name, root)
    if argument.suffix == ".json":
        return YamlSource(argument, {"deployment": str(argument.resolve())}, {})
    is_python = argument.suffix == ".py" and argument.is_file()
    if not is_python and (argument.suffix in {".yaml", ".yml"} or os.path.lexists(argument)):
        return read_yaml(argument)
    if python := argument if is_python else module_file(str(argument), root):
        names = [one.source.rpartition(".")[2] for one in in_file(python, python.parent)]
        hint = f"Name a pipeline in it, as in '{argument}:training'."
        if names:
            which = "Name its pipeline" if len(names) == 1 else "Name one of its pipelines"
            named = [f"'{shell_word(f'{argument}:{name}')}'" for name in names]
            hint = f"{which}: {listing(named)}."
        raise UsageError(f"{argument} is Python, not a run spec.", hint=hint)
    module, _, function = str(argument).rpartition(".")
    hint = f"A pipeline is named with a colon: '{module}:{function}'." if module else _AS_IN + "."
    if argument.suffix == ".py" or (not module and nearest_path(Path(), argument)):
        hint = path_hint(argument)
    raise UsageError(f"There is no file {argument}.", hint=hint)


def module_file(module: str, source_root: Path | None) -> Path | None:
    """Return the file of a module below the source root, if there is one."""
    place = (source_root or source_root_of(Path.cwd())).joinpath(*module.split("."))
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def source_root_of(folder: Path) -> Path:
    """Return the ZenML repository that a folder is in, else the folder itself."""
    return next((one for one in (folder, *folder.parents) if (one / ".zen").is_dir()), folder)


def _of_pipeline(argument: Path, place: str, name: str, source_root: Path | None) -> YamlSource:
    """Make the run spec that only names a pipeline, by its file or module."""
    if place.endswith(".py"):
        file = Path(place).resolve()
        if not file.is_file():
            raise UsageError(f"There is no file {place}.", hint=path_hint(Path(place), f":{name}"))
        root = source_root or source_root_of(import_folder(file))
        if not file.is_relative_to(root.resolve()):
            raise UsageError(
                f"{place} is not below the source root {root}.",
                hint="'--source-root' names the folder of the pipeline's code.",
            )
        parts = file.relative_to(root.resolve()).with_suffix("").parts
        wrong = [part for part in parts[:-1] if not part.isidentifier()]
        if wrong:
            raise UsageError(
                f"{place} is in the folder '{wrong[0]}' of the source root {root}, and no module"
                " can have that name.",
                hint=f"Use '--source-root {shell_word(str(import_folder(file)))}', the folder"
                " that the file is imported from.",
            )
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    else:
        root, module = source_root or source_root_of(Path.cwd()), place
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise UsageError(
            f"{argument} names no pipeline.",
            hint="As in 'training.py:training' or 'my_project.training:training'; the names of"
            " modules and functions hold letters, digits and underscores.",
        )
    return YamlSource(argument, {"pipeline": f"{module}.{name}", "source_root": str(root)}, {})
