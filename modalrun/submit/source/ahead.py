"""Copy the source tree while ZenML is imported and compiles.

Which files go is certain only once the pipeline is compiled. An earlier submission with the same
key (`fingerprint.of_spec`) says how they were selected then. The copy is used if they are selected
so again, and if no file has changed since it was copied: the user's code may write files when it is
imported. It leaves this machine early only if an earlier run had exactly these files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from modalrun.run.source import Source
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.submit.source.tree import SourceSelection, SourceTree
from modalrun.util import background, timeline


class SourceAhead:
    """Copy a source tree in another thread.

    Attributes:
        folder: Where the copy is. Its parent folder is removed at the end of the context.
    """

    def __init__(self, selection: SourceSelection, digest: str) -> None:
        """
        Args:
            selection: How the files were selected before.
            digest: The hash of what the earlier run got.
        """
        self._selection = selection
        self._digest = digest
        self._given_up = threading.Event()
        self._parent = tempfile.TemporaryDirectory(prefix="modalrun-source-")
        self.folder = Path(self._parent.name) / "source"
        self._copying = background.begin(self._copy, "source")

    def __enter__(self) -> SourceAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        wait([self._copying])
        self._parent.cleanup()

    def is_that_of_earlier_run(self) -> bool:
        """Return whether an earlier run had the same files; wait until they are copied."""
        with contextlib.suppress(Exception):
            return self._copying.result()[1].digest == self._digest
        return False

    def take(self, selection: SourceSelection, tree: SourceTree) -> Source | None:
        """Return the record of the copy; None if it is not one of these files as they are now."""
        if selection != self._selection:
            return None
        with contextlib.suppress(Exception):
            stamps, source = background.outcome(self._copying, "wait for the copy")
            return source if stamps == _stamps(tree) else None
        return None

    def _copy(self) -> tuple[dict[str, object], Source]:
        with timeline.phase("copy and hash the source"):
            tree = select(self._selection)
            # Before the copy: what changes meanwhile differs afterwards.
            stamps = _stamps(tree)
            return stamps, stage(tree, self.folder, self._given_up)


def remembered(selection: SourceSelection, source: Source) -> dict[str, Any]:
    """Return the plain values for the next submission's `copied_ahead`."""
    return {
        "dockerignore": selection.dockerignore,
        "include": selection.include,
        "may_include_credentials": selection.may_include_credentials,
        "digest": source.digest,
    }


def copied_ahead(root: Path, values: Any) -> SourceAhead | None:
    """Begin to copy a source tree as an earlier submission did; None if nothing is known of one."""
    with contextlib.suppress(Exception):
        digest = values.pop("digest")
        values["include"] = tuple(values["include"])
        return SourceAhead(SourceSelection(root, **values), digest)
    return None


def _stamps(tree: SourceTree) -> dict[str, object]:
    found: dict[str, object] = {}
    for file in tree.files:
        at = (tree.real_root / file.real).stat()
        found[os.fspath(file.path)] = (file.real, at.st_ino, at.st_mtime_ns, at.st_size, at.st_mode)
    return found
