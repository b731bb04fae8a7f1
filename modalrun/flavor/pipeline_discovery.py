"""Find the pipelines in a folder of Python files without importing them."""

from __future__ import annotations

from pathlib import Path

from modalrun.spec.python_pipelines import FoundPipeline, in_file
from modalrun.submit.source.root import check_root
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection


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
