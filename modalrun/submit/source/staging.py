"""Stage the source tree of a run: a copy that goes to its sandboxes, with its hashes."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.run.manifest import MANIFEST_FILE, RunManifest
from modalrun.run.source import MOST_FILES, Source
from modalrun.submit.source.changes import compare, hashes_to_store
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceFile, SourceSelection, SourceTree
from modalrun.util.regular_files import open_inside
from modalrun.util.text import listing


def stage(tree: SourceTree, folder: Path, given_up: threading.Event | None = None) -> Source:
    """Copy the files of a source tree, so that edits during a submission have no effect.

    Args:
        given_up: Ends the copying when it is set.

    Raises:
        UsageError: They can't go (`SourceTree.check`), or one can't be read.
    """
    tree.check()
    given_up = given_up or threading.Event()
    _copy(tree, folder, itertools.takewhile(lambda _: not given_up.is_set(), tree.files))
    return _record(hash_files(folder), tree.root)


def _record(hashes: Mapping[str, str], root: Path) -> Source:
    return Source(
        hash_tree(hashes), hashes_to_store(hashes), os.fsencode(root).decode(errors="replace")
    )


def stage_again(
    source: Source, selection: SourceSelection, folder: Path, *, rerun: bool = False
) -> tuple[Source, tuple[str, ...], SourceTree]:
    """Copy the files that a run was submitted with, which must not have changed.

    No path of the record is read or written: of the files that a submission would take now, those
    are copied that the record or the command line of a rerun names.

    Args:
        source: The record of the source tree as it was submitted.
        selection: Where it is now, and which files a submission would take.
        rerun: Whether it is for a run of its own, which may have other files.

    Returns:
        The record of what was copied, the files that are new and left out, as far as that is known,
        and what was copied.

    Raises:
        UsageError: The source tree is missing or has changed, or what the command line names is
            missing.
    """
    root = selection.root
    where = f"It was submitted from {source.root}. " if source.root not in {"", str(root)} else ""
    hint = (
        f"{where}Run the command in the folder of what was submitted, or name that folder with"
        " '--source-root FOLDER'."
    )
    if rerun:
        hint += " Or take the files as they are, and compile the pipeline anew: '--new-code'."
    if not root.is_dir():
        raise UsageError(f"There is no folder {root} with the run's source tree.", hint=hint)
    changed = f"The source tree {root} has changed since the run was submitted"
    mismatch = "The rest of the run would not match the finished steps."
    tree = select(selection)
    if not source.files:
        if (staged := stage(tree, folder)).digest == source.digest:
            return staged, (), tree
        raise UsageError(
            f"{changed}. {mismatch} Which files differ is not known: of more than {MOST_FILES:,}"
            " files only the total hash is stored.",
            hint=f"Restore the files and remove new ones ('git status' lists them). {hint}",
        )
    if selection.added:
        tree.check()
    added = [Path(name) for name in selection.added]
    present = [file.path.as_posix() for file in tree.files]
    tree.files = [
        file
        for file in tree.files
        if file.path.as_posix() in source.files or any(map(file.path.is_relative_to, added))
    ]
    _copy(tree, folder, tree.files)
    found = hash_files(folder)
    if not found:
        raise UsageError(f"The folder {root} holds none of the run's files.", hint=hint)
    changes = compare(source.files, found, present)
    if changes.changed or changes.missing:
        raise UsageError(
            f"{changed}: {changes}. {mismatch}",
            hint="Restore the changed and missing files; a file that .gitignore or .dockerignore"
            f" leaves out is missing, and new files are no obstacle. {hint}",
        )
    return _record(found, root), changes.new, tree


def new_files_note(new: Collection[str]) -> str:
    """Return a note on files that a resumed run does not get."""
    return f"note: new files, which the run does not get: {listing(new)}"


def write_manifest(manifest: RunManifest, folder: Path) -> Path:
    """Write a manifest to a folder and return the file."""
    file = folder / Path(MANIFEST_FILE).name
    file.write_text(manifest.to_json(), encoding="utf-8")
    return file


def hash_files(folder: Path) -> dict[str, str]:
    """Hash each file of a staged source tree, by its path, sorted; "+x" marks executables."""
    return {
        path.relative_to(folder).as_posix(): _hash(path)
        for path in sorted(p for p in folder.rglob("*") if p.is_file())
    }


def _hash(path: Path) -> str:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{content}+x" if path.stat().st_mode & 0o100 else content


def hash_tree(files: Mapping[str, str]) -> str:
    """Hash a whole source tree from the hashes of its files."""
    total = hashlib.sha256()
    for path, text in files.items():
        content, executable, _ = text.partition("+x")
        # A path may hold bytes that are not UTF-8.
        total.update(os.fsencode(f"{path}\0{bool(executable)}\0{content}\n"))
    return total.hexdigest()


def _copy(tree: SourceTree, folder: Path, files: Iterable[SourceFile]) -> None:
    """Copy files of a source tree with their modes.

    Not their times: the SDK refuses files that seem newer than now (`modal/mount.py:608`, 1.6.4).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        destination = folder / file.path
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            with open_inside(tree.real_root, file.real) as source, destination.open("wb") as copy:
                shutil.copyfileobj(source, copy)
                found = os.fstat(source.fileno())
            destination.chmod(found.st_mode & 0o777)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
            raise UsageError(
                f"The file {tree.root / file.path} can't be copied for the sandbox:"
                f" {error.strerror or error}.",
                hint="It changed meanwhile: try again when nothing else writes in the source root."
                if gone
                else "If the pipeline doesn't need it, list it in .dockerignore.",
            ) from error
