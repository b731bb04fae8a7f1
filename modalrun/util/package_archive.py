"""Pack modalrun into an archive that Python imports from, already compiled.

One file is sent, mounted and opened faster than three hundred. Mounted files have no time of their
own, by which Python would know their bytecode; here it says that nobody need check it (PEP 552). A
Python of another version compiles the sources, which are in the archive too.
"""

from __future__ import annotations

import importlib.util
import marshal
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import modalrun

_UNCHECKED = (1).to_bytes(4, "little")
_NO_REFERENCES = 2
"""The last version of the format of `marshal` that has none."""

_CLIENT_ONLY = ("cli", "control", "doctor", "flavor", "localmodal", "observe", "output", "submit")
"""Packages that no process in a sandbox imports by itself; they are not compiled."""


def write_archive(path: Path, mounted: str) -> None:
    """Write modalrun's source and bytecode into a ZIP file.

    Args:
        mounted: Its path in sandboxes, which tracebacks show.
    """
    package = Path(modalrun.__file__).parent
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(package.rglob("*.py")):
            name, source = file.relative_to(package.parent), file.read_bytes()
            # Without the time of now: the same source makes the same file, which is sent once.
            archive.writestr(zipfile.ZipInfo(str(name)), source)
            if name.parts[1] not in _CLIENT_ONLY:
                module = ".".join(name.with_suffix("").parts)
                # From Python's cache on this machine, if it is there.
                code = SourceFileLoader(module, str(file)).get_code(module)
                assert code is not None
                # Without references, whose number depends on what this process has imported.
                moved = marshal.dumps(_moved(code, f"{mounted}/{name}"), _NO_REFERENCES)
                header = importlib.util.MAGIC_NUMBER + _UNCHECKED
                bytecode = header + importlib.util.source_hash(source) + moved
                archive.writestr(zipfile.ZipInfo(str(name.with_suffix(".pyc"))), bytecode)


def _moved(code: CodeType, path: str) -> CodeType:
    """Return code that is compiled from another path, and names none of this machine."""
    constants = (_moved(c, path) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=path, co_consts=tuple(constants))
