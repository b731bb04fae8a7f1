"""Find the pipelines in a folder of Python files without importing them."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.spec.python_pipelines import FoundPipeline, in_file, may_have
from modalrun.spec.spec_argument import module_file
from modalrun.submit.source.root import check_root
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.util.nearest import did_you_mean


def pipelines(root: Path) -> list[FoundPipeline]:
    """Return the pipelines of all modules below a folder, sorted by source.

    Tests, and files that Git or `.dockerignore` ignore, are left out.

    Raises:
        UsageError: As for `select`.
    """
    check_root(root, "Run the command in the folder of the project.")
    found = []
    for file in select(SourceSelection(root)).files:
        if "tests" not in file.path.parts:
            found += in_file(root / file.path, root)
    return sorted(found, key=lambda one: one.source)


def named(argument: str, folder: Path, root: Path, known: Sequence[FoundPipeline]) -> FoundPipeline:
    """Return the pipeline that a command line names.

    Args:
        argument: `module.function`, `module:function` or `file.py:function`.
        folder: The folder that a file is relative to.
        root: The source root.
        known: The pipelines below it.

    Raises:
        UsageError: It names none.
    """
    module, _, name = argument.rpartition(":" if ":" in argument else ".")
    if module.endswith(".py"):
        parts = Path(os.path.relpath(folder / module, root)).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
    source = f"{module}.{name}"
    hint = "As in 'modalrun init training.py:training' or 'modalrun init training.training'."
    if not all(part.isidentifier() for part in source.split(".")):
        problem = f"'{argument}' is not a pipeline's source (module.function)."
        raise UsageError(problem, hint=hint)
    file = module_file(module, root) or module_file(module, root / "src")
    in_module = in_file(file, root) if file else []
    same = [one for one in in_module if one.source.rpartition(".")[2] == name]
    # Modules may be imported from another folder than the source root.
    for one in (*same, *known):
        if one in same or one.source == source:
            return one
    if file and may_have(file, name):
        return FoundPipeline(source)
    raise UsageError(
        f"There is no pipeline '{argument}' below the source root {root}.",
        hint=did_you_mean(source, [one.source for one in known], hint),
    )
