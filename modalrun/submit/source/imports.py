"""Refuse a pipeline whose modules import others that are here and do not go to a sandbox.

Only statements that always run count: one inside of `try`, `if` or a function may be meant for this
machine alone.
"""

from __future__ import annotations

import ast
import contextlib
import os.path
from collections.abc import Iterable, Iterator
from importlib.machinery import all_suffixes
from importlib.util import resolve_name
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.submit.source.tree import SourceSelection, SourceTree, shown
from modalrun.util.text import listing


def check_imports(selection: SourceSelection, tree: SourceTree) -> None:
    """Refuse a source tree that lacks a module for a rule by which files are left out.

    Raises:
        UsageError: A sandbox would not find a module that is on this machine.
    """
    going = {file.path for file in tree.files}
    waiting, seen, missing = list(selection.modules), set[str](), dict[Path, str]()
    while waiting:
        # A deployment file may name anything.
        if (name := waiting.pop()) in seen or "/" in name:
            continue
        seen.add(name)
        waiting += filter(None, [name.rpartition(".")[0]])
        if (file := _file_of(name, selection.folders)) is None:
            continue
        if (path := file.relative_to(selection.root)) in going:
            waiting += _imported(file, name)
        elif left_out := tree.left_out_by(path):
            missing.update([left_out])
    if missing:
        # Without what is in a package that is missing as a whole.
        paths = sorted(path for path in missing if missing.keys().isdisjoint(path.parents))
        raise UsageError(
            "The pipeline imports modules of the source root that do not go to a sandbox: "
            f"{listing([f'{shown(path)} ({missing[path]})' for path in paths])}.",
            hint=f"Take them along: {selection.to_include(paths)}.",
        )


def _file_of(name: str, folders: Iterable[Path]) -> Path | None:
    """Return the file that a module is imported from, without importing it."""
    for folder in folders:
        path = folder.joinpath(*name.split("."))
        for end in ("/__init__.py", *all_suffixes()):
            # Unlike Path.is_file, it takes any text.
            if os.path.isfile(file := f"{path}{end}"):  # noqa: PTH113
                return Path(file)
    return None


def _imported(file: Path, name: str) -> Iterator[str]:
    """Yield the names that a module imports in any case; some may be no modules."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    # Whoever imports it reports what is wrong with it, and of compiled code nothing is known.
    with contextlib.suppress(OSError, SyntaxError, ValueError, ImportError):
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.Import):
                yield from (one.name for one in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = resolve_name(f"{'.' * node.level}{node.module or ''}", package)
                yield base
                yield from (f"{base}.{one.name}" for one in node.names)
