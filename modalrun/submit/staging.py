"""Stage the source tree of a run: a copy that goes to its sandboxes, with its hashes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.docker_settings import dockerignore
from modalrun.run.manifest import Source
from modalrun.submit.source_changes import MOST_FILES, compare, hashes_to_store
from modalrun.submit.source_tree import copy, digest, hashes, source_files, stage


def stage_for_run(root: Path, folder: Path, docker: Mapping[str, Any]) -> Source:
    """Stage the source tree of a new run.

    Args:
        root: The source root.
        folder: Where the copy goes.
        docker: The pipeline's Docker settings.

    Raises:
        UsageError: As for `stage`.
    """
    ignore_file = dockerignore(docker)
    stage(root, folder, dockerignore=ignore_file)
    files = hashes(folder)
    return Source(root, digest(files), hashes_to_store(files), ignore_file)


def stage_again(source: Source, root: Path, folder: Path) -> tuple[str, ...]:
    """Stage the files that a run was submitted with, which must not have changed.

    Args:
        source: The source tree as it was submitted.
        root: The folder where it is now.
        folder: Where the copy goes.

    Returns:
        The files in `root` that are new and left out, as far as that is known.

    Raises:
        UsageError: The source tree is missing or has changed.
    """
    if not root.is_dir():
        raise UsageError(
            f"The run's source tree {root} is not on this machine.",
            hint="Check out what was submitted, and name its folder with '--source-root'.",
        )
    if not source.files:
        stage(root, folder, dockerignore=source.dockerignore)
        if digest(hashes(folder)) != source.digest:
            raise UsageError(
                f"The source tree {root} has changed since the run was submitted; the rest of the"
                " run would not match the finished steps. Which files differ is not known: of more"
                f" than {MOST_FILES:,} files only the total hash is stored.",
                hint="Restore the files and remove new ones ('git status' lists them), or check"
                " out what was submitted and name its folder with '--source-root'.",
            )
        return ()
    copy(root, folder, (Path(path) for path in source.files if (root / path).is_file()))
    found = hashes(folder) if folder.is_dir() else {}
    present: list[str] = []
    # New files are only reported, so an error about them must not stop the run.
    with contextlib.suppress(UsageError):
        files = source_files(root, dockerignore=source.dockerignore, bounded=False)
        present = [path.as_posix() for path in files]
    changes = compare(source.files, found, present)
    if changes.changed or changes.missing:
        raise UsageError(
            f"The source tree {root} has changed since the run was submitted: {changes}. The rest"
            " of the run would not match the finished steps.",
            hint="Restore the changed and missing files, or check out what was submitted and name"
            " its folder with '--source-root'. New files are no obstacle.",
        )
    return changes.new
