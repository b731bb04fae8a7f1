"""Refuse a folder that can't be the source root of a run."""

from __future__ import annotations

import pkgutil
import sys
import tempfile
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.spec.run_spec import NAME_ROOT
from modalrun.util.credentials import refuse_private_folder

_SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (they are refused)

_IMPORTED = frozenset({"modal", "modal_proto", "modalrun", "grpclib", "synchronicity", "zenml"})
"""Modules that a sandbox imports in any case, and this process perhaps not yet."""

_NOT_IMPORTED = frozenset(
    {"chunk", "cmd", "code", "pipes", "profile", "sched", "statistics", "this", "trace", "wave"}
)
"""Modules of Python that a debugger or a notebook imports, and ZenML and modalrun don't."""


def check_root(root: Path, hint: str = NAME_ROOT) -> None:
    """Refuse the home folder, one above it, one of credentials or `/tmp` as a source root.

    A module in it must not hide one that ZenML or modalrun imports: in a sandbox, the source root
    comes first on Python's path.

    Args:
        hint: What the user can do.

    Raises:
        UsageError: It is such a folder, or holds such a module.
    """
    refuse_private_folder(root, "The source root", hint)
    if root.resolve() in {Path(folder).resolve() for folder in (*_SHARED, tempfile.gettempdir())}:
        raise UsageError(
            f"The source root {root} is the folder for temporary files of all programs.", hint=hint
        )
    check_modules(root)


def check_modules(folder: Path) -> None:
    """Refuse a folder of Python's path with a module that hides one of ZenML's or modalrun's.

    Raises:
        UsageError: It holds such a module.
    """
    for one in pkgutil.iter_modules([str(folder)]):
        if _hides(one.name, folder):
            end = "/" if one.ispkg else ".py"
            hint = "Rename it, or move it into a package of your own."
            if one.name == "modalrun":
                hint = (
                    "In a clone of modalrun, install that ('pip install -e .'). Else, run the"
                    " command in another folder, or rename it."
                )
            raise UsageError(
                f"{folder / one.name}{end} hides the module '{one.name}' that ZenML and modalrun"
                " import: in a sandbox, modules of the source root and of PYTHONPATH come first.",
                hint=hint,
            )


def _hides(name: str, root: Path) -> bool:
    """Return whether this process, which has imported what a sandbox does, has another module."""
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return name in _IMPORTED
    file = Path(getattr(module, "__file__", None) or "")
    if file.parent in {root, root / name, root.resolve(), root.resolve() / name}:
        # It is the one that is imported: the source root may be modalrun's own repository.
        return False
    if name in _IMPORTED:
        return True
    installed = not {"site-packages", "dist-packages"}.isdisjoint(file.parts)
    return installed or name in sys.stdlib_module_names - _NOT_IMPORTED
