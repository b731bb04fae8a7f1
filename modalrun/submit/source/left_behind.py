"""Say of a file or module that a step has missed that it is here, and did not go along."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from modalrun.errors import ModalrunError, UsageError
from modalrun.run.failure import IN_CODE, Failure
from modalrun.run.run_plan import Target
from modalrun.submit.source.root import check_root
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SET_ROOT, SourceSelection, shown

_QUOTED = re.compile(r"'([^']{1,1000})'|\"([^\"]{1,1000})\"")
_IN_SANDBOX = re.compile(rf"\A{IN_CODE}")


def left_behind(selection: SourceSelection, target: Target, failure: Failure) -> str | None:
    """Return what a step has missed that is on this machine, and how it gets it.

    Args:
        selection: Which files of which folder went.

    Returns:
        None if it missed nothing that is here.
    """
    # The run has ended: nothing that has changed here since may hide its outcome.
    with contextlib.suppress(ModalrunError, OSError, ValueError):
        if failure.kind == "ModuleNotFoundError":
            return _module(selection, failure.message)
        if failure.kind == "FileNotFoundError" or "No such file" in failure.message:
            paths = (one[1] or one[2] for one in _QUOTED.finditer(failure.message))
            return next(filter(None, (_file(selection, target, path) for path in paths)), None)
    return None


def _module(selection: SourceSelection, message: str) -> str | None:
    found = _QUOTED.search(message)
    if found is None:
        return None
    name = found[1] or found[2]
    path = Path(*name.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py", path):
        if remark := _ignored(selection, file):
            return remark
    root = selection.root
    if path.parts[0] == root.name and _may_be_root(root.parent):
        return (
            f"'{root.name}' is the source root itself. Make {root.parent} the source root:"
            f" {SET_ROOT} (and then 'zenml stack set' again)."
        )
    return None


def _file(selection: SourceSelection, target: Target, text: str) -> str | None:
    root = selection.root
    path = Path(os.path.normpath(_IN_SANDBOX.sub("", text)))
    # Where this machine's code would have read it, if not in the source root itself.
    for folder in (root, Path.cwd(), root.parent):
        found = Path(os.path.normpath(folder / path))
        if not os.path.lexists(found):
            continue
        if not found.is_relative_to(root):
            remark = _outside(root, found, folder)
            if target == "local" and path.is_absolute():
                remark += (
                    " For runs on this machine only: 'modalrun local stop', and set"
                    " MODALRUN_LOCAL_SHARED to its folder."
                )
            return remark
        inside = found.relative_to(root)
        if inside == path:
            return _ignored(selection, path)
        return (
            f"{shown(found)} is on this machine. In a sandbox the source root is elsewhere, and the"
            f" working folder: use a path relative to it ({shown(inside)})."
        )
    return None


def _outside(root: Path, found: Path, folder: Path) -> str:
    """Return a remark on a file that is not in the source root, read relative to a folder."""
    remark = (
        f"{shown(found)} is on this machine, and not in a sandbox: copy it below the source root"
        f" {root}, or keep it in a volume or a bucket."
    )
    if root.is_relative_to(folder) and found.is_relative_to(folder) and _may_be_root(folder):
        remark += (
            f" Or make {folder} the source root ({SET_ROOT}), with 'PYTHONPATH:"
            f" {root.relative_to(folder)}' in the 'environment' of the Docker settings."
        )
    return remark


def _may_be_root(folder: Path) -> bool:
    try:
        check_root(folder)
    except UsageError:
        return False
    return True


def _ignored(selection: SourceSelection, path: Path) -> str | None:
    """Return a remark on a path relative to the source root that is here and did not go."""
    if ".." in path.parts or not os.path.lexists(selection.root / path):
        return None
    tree = select(selection)
    if any(file.path == path or path in file.path.parents for file in tree.files):
        return None
    path, rule = tree.left_out_by(path) or (path, "it is empty, or new since the submission")
    return (
        f"{shown(path)} is in the source root, but did not go along ({rule}). Take it along:"
        f" {selection.to_include([path])}."
    )
